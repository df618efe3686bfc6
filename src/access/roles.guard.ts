import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request } from 'express';
import { isResolver, requestOf } from '../http/request-of.js';
import { problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { routeAccess } from './route-access.js';
import type { Principal } from './principal.js';
import { rolesOf } from './user-rules.js';

/** Runs after the AuthGuard. Checks the roles and the other access rules of a route. */
@Injectable()
export class RolesGuard implements CanActivate {
  constructor(private readonly environment: Environment) {}

  canActivate(context: ExecutionContext): boolean {
    const request = requestOf(context);
    if (!request?.principal) return true;
    const { principal } = request;
    const { user, isAdmin } = principal;
    const { verified, roles, self } = routeAccess(context);

    if (verified && !user.emailVerified) throw problem('EMAIL_NOT_VERIFIED');
    if (roles && !this.hasOneOf(principal, roles)) throw problem('AUTH_FORBIDDEN');
    if (self && parametersOf(context, request)[self] !== user.id && !isAdmin) {
      // The response is the same whether or not that user exists.
      throw problem('AUTH_FORBIDDEN');
    }
    return true;
  }

  private hasOneOf({ user, isAdmin }: Principal, roles: string[]): boolean {
    const { ADMIN_ROLES } = this.environment;
    const own = rolesOf(user);
    return roles.some((role) =>
      // An admin role does not count in an impersonated session.
      role === 'admin' ? isAdmin : own.includes(role) && (isAdmin || !ADMIN_ROLES.includes(role)),
    );
  }
}

/** The parameters of the path, or the arguments of the resolver. */
function parametersOf(context: ExecutionContext, { params }: Request): Record<string, unknown> {
  return isResolver(context) ? context.getArgByIndex(1) : params;
}
