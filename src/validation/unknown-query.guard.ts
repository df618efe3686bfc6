import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { ROUTE_ARGS_METADATA } from '@nestjs/common/constants.js';
import { RouteParamtypes } from '@nestjs/common/enums/route-paramtypes.enum.js';
import type { Request } from 'express';
import { routeAccess } from '../access/route-access.js';
import { memoizePerRoute } from '../http/memoize-per-route.js';
import { problem } from '../problems/problem.js';
import { MAX_ERRORS } from './validation.pipe.js';

/**
 * Rejects query parameters of a private route that reads no query, as a DTO rejects unknown fields.
 * Public routes such as probes accept any query.
 */
@Injectable()
export class UnknownQueryGuard implements CanActivate {
  canActivate(context: ExecutionContext): true {
    if (context.getType() !== 'http') return true;
    const request = context.getArgByIndex<Request>(0);
    // Express parses the query at each access.
    if (!request.url.includes('?')) return true;
    const names = Object.keys(request.query);
    if (names.length === 0 || readsQuery(context) || routeAccess(context).isPublic) return true;
    throw problem('VALIDATION_ERROR', {
      errors: names
        .slice(0, MAX_ERRORS)
        .map((field) => ({ field, message: `property ${field} should not exist` })),
    });
  }
}

const QUERY_READERS = new Set([RouteParamtypes.QUERY, RouteParamtypes.REQUEST].map(String));

/** Whether the handler has a `@Query()` or `@Req()` parameter. */
const readsQuery = memoizePerRoute((controller, handler) => {
  const parameters = Reflect.getMetadata(ROUTE_ARGS_METADATA, controller, handler.name) as
    object | undefined;
  return Object.keys(parameters ?? {}).some((key) => {
    const [kind = ''] = key.split(':', 1);
    return QUERY_READERS.has(kind);
  });
});
