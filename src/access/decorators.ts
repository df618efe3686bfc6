import {
  applyDecorators,
  createParamDecorator,
  type ExecutionContext,
  SetMetadata,
} from '@nestjs/common';
import { ApiExtension } from '@nestjs/swagger';
import type { Request } from 'express';
import { Problems } from '../problems/problems.decorator.js';
import type { Principal } from './principal.js';

/** What a route asks of its caller, under the name that the guards look for. */
export const PUBLIC = 'gatehouse:public';
export const ROLES = 'gatehouse:roles';
export const SELF = 'gatehouse:self';
export const VERIFIED = 'gatehouse:verified';

/** Anyone may call it, without a token. Every route that does not wear this asks for one. */
export function Public() {
  return applyDecorators(SetMetadata(PUBLIC, true), ApiExtension('x-public', true));
}

/**
 * The caller has one of these roles, by the user row and not by the token. `admin` stands for those who
 * administer: a role of `ADMIN_ROLES`, or an id in `ADMIN_USER_IDS`.
 */
export function Roles(...roles: [string, ...string[]]) {
  return applyDecorators(SetMetadata(ROLES, roles), Problems('AUTH_FORBIDDEN'));
}

/** The path parameter is the caller's own id, or the caller administers. */
export function SelfOrAdmin(parameter = 'id') {
  return applyDecorators(SetMetadata(SELF, parameter), Problems('AUTH_FORBIDDEN'));
}

export function RequireVerifiedEmail() {
  return applyDecorators(SetMetadata(VERIFIED, true), Problems('EMAIL_NOT_VERIFIED'));
}

/** `{ user, session, token }` of the caller. */
export const CurrentPrincipal = createParamDecorator((_: unknown, context) => principalOf(context));

export const CurrentUser = createParamDecorator((_: unknown, context) => principalOf(context).user);

/** Null where the token names no session. */
export const CurrentSession = createParamDecorator(
  (_: unknown, context) => principalOf(context).session,
);

export function principalOf(context: ExecutionContext): Principal {
  const { principal } = context.switchToHttp().getRequest<Request>();
  if (!principal)
    throw new Error('A public route has no principal: take @Public() off, or ask for none.');
  return principal;
}
