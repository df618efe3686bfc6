import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { ROUTE_ARGS_METADATA } from '@nestjs/common/constants.js';
import { RouteParamtypes } from '@nestjs/common/enums/route-paramtypes.enum.js';
import type { Request } from 'express';
import { routeAccess } from '../access/route-access.js';
import { memoizePerRoute } from '../http/memoize-per-route.js';
import { problem } from '../problems/problem.js';
import { MAX_ERRORS } from './validation.pipe.js';

/**
 * A private route that reads no query refuses every parameter of one by name, as a DTO refuses what it does
 * not know. A probe may carry whatever its prober likes.
 */
@Injectable()
export class UnknownQueryGuard implements CanActivate {
  canActivate(context: ExecutionContext): true {
    const request = context.switchToHttp().getRequest<Request>();
    // Express takes the query apart each time that it is asked for it.
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

const READERS = new Set([RouteParamtypes.QUERY, RouteParamtypes.REQUEST].map(String));

/** By `@Query()`, or by the request itself. */
const readsQuery = memoizePerRoute((controller, handler) => {
  const read = Reflect.getMetadata(ROUTE_ARGS_METADATA, controller, handler.name) as object;
  return Object.keys(read ?? {}).some((key) => {
    const [kind = ''] = key.split(':', 1);
    return READERS.has(kind);
  });
});
