import type { ArgumentsHost } from '@nestjs/common';
import type { Request, Response } from 'express';

/**
 * The HTTP request of a route or of a GraphQL resolver. Messages of a WebSocket gateway and of a
 * microservice have none.
 */
export function requestOf(host: ArgumentsHost): Request | undefined {
  if (host.getType() === 'http') return host.getArgByIndex<Request>(0);
  if (!isResolver(host)) return undefined;
  // Nest's drivers for Express put the request here, and its documentation reads it here.
  return host.getArgByIndex<{ req?: Request } | undefined>(2)?.req;
}

/** Express links each request to its response. */
export function responseOf(request: Request): Response {
  return request.res as Response;
}

export function isResolver(host: ArgumentsHost): boolean {
  return host.getType<string>() === 'graphql';
}
