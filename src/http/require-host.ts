import type { RequestHandler } from 'express';
import { problem } from '../problems/problem.js';
import { sendProblem } from './problem.filter.js';

/**
 * Rejects HTTP/1.1 requests without a host (RFC 9112 §3.2). It calls `then` itself, because Express
 * matches the path again for each middleware.
 */
export function requireHost(then: RequestHandler): RequestHandler {
  return (request, response, next) => {
    if (request.headers.host !== undefined || request.httpVersionMinor === 0) {
      return then(request, response, next);
    }
    return sendProblem(request, response, problem('MALFORMED_REQUEST'));
  };
}
