import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request } from 'express';
import { problem } from '../common/problem.js';
import { Environment } from '../config/environment.js';
import { demandsOf } from './demands.js';
import type { UserRow } from './principal.js';
import { isAdmin, rolesOf } from './user-rules.js';

/** After the AuthGuard: what the route asks of its caller beyond being somebody. */
@Injectable()
export class RolesGuard implements CanActivate {
  constructor(private readonly environment: Environment) {}

  canActivate(context: ExecutionContext): boolean {
    const { principal, params } = context.switchToHttp().getRequest<Request>();
    if (!principal) return true;
    const { user } = principal;
    const { verified, roles, self } = demandsOf(context);

    if (verified && !user.emailVerified) throw problem('EMAIL_NOT_VERIFIED');
    if (roles && !this.hasOneOf(user, roles)) throw problem('AUTH_FORBIDDEN');
    if (self && params[self] !== user.id && !isAdmin(user, this.environment)) {
      // The same answer whether or not that user exists.
      throw problem('AUTH_FORBIDDEN');
    }
    return true;
  }

  private hasOneOf(user: UserRow, roles: string[]): boolean {
    const own = rolesOf(user);
    return roles.some((role) =>
      role === 'admin' ? isAdmin(user, this.environment) : own.includes(role),
    );
  }
}
