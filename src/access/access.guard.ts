import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request } from 'express';
import { isResolver, requestOf } from '../http/request-of.js';
import { problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import type { PermissionRule, SelfRule } from './decorators.js';
import { requirePermissions, type RequiredPermissions } from './permissions.js';
import { routeAccess } from './route-access.js';
import type { Principal } from './principal.js';
import { rolesOf } from './user-rules.js';

/** Runs after the AuthGuard. Checks permissions, roles and the other access rules of a route. */
@Injectable()
export class AccessGuard implements CanActivate {
  constructor(private readonly environment: Environment) {}

  canActivate(context: ExecutionContext): boolean {
    const request = requestOf(context);
    if (!request?.principal) return true;
    const { principal } = request;
    const { verified, roles, permissions, self } = routeAccess(context);

    if (verified && !principal.user.emailVerified) throw problem('EMAIL_NOT_VERIFIED');
    if (roles && !this.hasOneOf(principal, roles)) throw problem('AUTH_FORBIDDEN');
    if (permissions) {
      requirePermissions(principal.permissions, requiredFor(permissions, request));
    }
    if (self) requireSelf(principal, self, parametersOf(context, request));
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

/** Express chooses the same media type for the response. */
function requiredFor(
  { required, byMediaType }: PermissionRule,
  request: Request,
): RequiredPermissions {
  const others = Object.keys(byMediaType);
  const type = others.length > 0 && request.accepts(['json', ...others]);
  return (type && byMediaType[type]) || required;
}

/** The response is the same whether or not the other user exists. */
function requireSelf(
  { user, isAdmin, permissions }: Principal,
  { parameter, required }: SelfRule,
  parameters: Record<string, unknown>,
): void {
  if (parameters[parameter] === user.id) return;
  if (required) requirePermissions(permissions, required);
  else if (!isAdmin) throw problem('AUTH_FORBIDDEN');
}

/** The parameters of the path, or the arguments of the resolver. */
function parametersOf(context: ExecutionContext, { params }: Request): Record<string, unknown> {
  return isResolver(context) ? context.getArgByIndex(1) : params;
}
