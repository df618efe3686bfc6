import {
  applyDecorators,
  createParamDecorator,
  type ExecutionContext,
  SetMetadata,
} from '@nestjs/common';
import { ApiExtension } from '@nestjs/swagger';
import { requestOf } from '../http/request-of.js';
import { Problems } from '../problems/problems.decorator.js';
import type { Principal } from './principal.js';

/** The metadata keys under which routes declare their access rules. */
export const PUBLIC = 'gatehouse:public';
export const ROLES = 'gatehouse:roles';
export const SELF = 'gatehouse:self';
export const VERIFIED = 'gatehouse:verified';

/** The route needs no token. Every route without this decorator needs one. */
export function Public() {
  return applyDecorators(SetMetadata(PUBLIC, true), ApiExtension('x-public', true));
}

/**
 * The user must have one of these roles, by the user row and not by the token. `admin` means a role
 * of `ADMIN_ROLES`, or an id in `ADMIN_USER_IDS`.
 */
export function Roles(...roles: [string, ...string[]]) {
  return applyDecorators(SetMetadata(ROLES, roles), Problems('AUTH_FORBIDDEN'));
}

/** The path parameter must be the user's own id, unless the user is an admin. */
export function SelfOrAdmin(parameter = 'id') {
  return applyDecorators(SetMetadata(SELF, parameter), Problems('AUTH_FORBIDDEN'));
}

/** The user must have a verified e-mail address. */
export function RequireVerifiedEmail() {
  return applyDecorators(SetMetadata(VERIFIED, true), Problems('EMAIL_NOT_VERIFIED'));
}

/** The whole `Principal` of the request. */
export const CurrentPrincipal = createParamDecorator((_: unknown, context) => principalOf(context));

export const CurrentUser = createParamDecorator((_: unknown, context) => principalOf(context).user);

/** Null if the token has no session id. */
export const CurrentSession = createParamDecorator(
  (_: unknown, context) => principalOf(context).session,
);

export function principalOf(context: ExecutionContext): Principal {
  const principal = requestOf(context)?.principal;
  if (!principal)
    throw new Error(
      'A public route has no principal: remove @Public(), or do not inject the principal.',
    );
  return principal;
}
