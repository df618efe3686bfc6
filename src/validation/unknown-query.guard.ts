import {
  applyDecorators,
  type CanActivate,
  type ExecutionContext,
  Injectable,
  SetMetadata,
} from '@nestjs/common';
import { ROUTE_ARGS_METADATA } from '@nestjs/common/constants.js';
import { RouteParamtypes } from '@nestjs/common/enums/route-paramtypes.enum.js';
import { ApiQuery } from '@nestjs/swagger';
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
    const { readsQuery, allowed } = queryOf(context);
    if (readsQuery || routeAccess(context).isPublic) return true;
    const names = Object.keys(request.query).filter((name) => !allowed.includes(name));
    if (names.length === 0) return true;
    throw problem('VALIDATION_ERROR', {
      errors: names
        .slice(0, MAX_ERRORS)
        .map((field) => ({ field, message: `property ${field} should not exist` })),
    });
  }
}

const QUERY_READERS = new Set([RouteParamtypes.QUERY, RouteParamtypes.REQUEST].map(String));

const queryOf = memoizePerRoute((controller, handler) => {
  const parameters = Reflect.getMetadata(ROUTE_ARGS_METADATA, controller, handler.name) as
    object | undefined;
  return {
    /** Whether the handler has a `@Query()` or `@Req()` parameter. */
    readsQuery: Object.keys(parameters ?? {}).some((key) => {
      const [kind = ''] = key.split(':', 1);
      return QUERY_READERS.has(kind);
    }),
    allowed: (Reflect.getMetadata(ALLOWED_QUERY, handler) as string[] | undefined) ?? [],
  };
});

/**
 * The route reads these query parameters without `@Query()`, for example by a parameter decorator
 * of its own. They are optional, and not validated.
 */
export function AllowQuery(...names: [string, ...string[]]) {
  return applyDecorators(
    SetMetadata(ALLOWED_QUERY, names),
    ...names.map((name) => ApiQuery({ name, required: false, type: String })),
  );
}

const ALLOWED_QUERY = 'gatehouse:allowed-query';
