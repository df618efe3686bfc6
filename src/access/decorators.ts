import {
  applyDecorators,
  createParamDecorator,
  type ExecutionContext,
  SetMetadata,
} from '@nestjs/common';
import { ApiExtension } from '@nestjs/swagger';
import { requestOf } from '../http/request-of.js';
import { Problems } from '../problems/problems.decorator.js';
import type { RequiredPermissions } from './permissions.js';
import type { Principal } from './principal.js';

/** The metadata keys under which routes declare their access rules. */
export const PUBLIC = 'gatehouse:public';
export const ROLES = 'gatehouse:roles';
export const SELF = 'gatehouse:self';
export const PERMISSIONS = 'gatehouse:permissions';
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

/**
 * One role of the user must allow all these actions, such as `{ user: ['ban'] }`. `byMediaType`
 * replaces them for a response of that type, which the client requests with `Accept`.
 */
export function RequirePermissions(
  required: RequiredPermissions,
  byMediaType: Readonly<Record<string, RequiredPermissions>> = {},
) {
  [required, ...Object.values(byMediaType)].forEach(requireActions);
  const rule: PermissionRule = { required, byMediaType };
  const others = Object.entries(byMediaType).map(
    ([type, actions]) => ` With \`Accept: ${type}\`, it requires ${namesOf(actions)}.`,
  );
  return applyDecorators(
    SetMetadata(PERMISSIONS, rule),
    ...documented(required, `Requires ${namesOf(required)}.${others.join('')}`),
  );
}

/** The path parameter must be the user's own id, unless the user is an admin. */
export function SelfOrAdmin(parameter = 'id') {
  const rule: SelfRule = { parameter };
  return applyDecorators(SetMetadata(SELF, rule), Problems('AUTH_FORBIDDEN'));
}

/** The path parameter must be the user's own id, unless the user has these permissions. */
export function SelfOrPermissions(required: RequiredPermissions, parameter = 'id') {
  requireActions(required);
  const rule: SelfRule = { parameter, required };
  return applyDecorators(
    SetMetadata(SELF, rule),
    ...documented(required, `Requires ${namesOf(required)} for another user.`),
  );
}

/** The user must have a verified e-mail address. */
export function RequireVerifiedEmail() {
  return applyDecorators(SetMetadata(VERIFIED, true), Problems('EMAIL_NOT_VERIFIED'));
}

export interface PermissionRule {
  required: RequiredPermissions;
  byMediaType: Readonly<Record<string, RequiredPermissions>>;
}

/** Without `required`, admins may use the route for another user. */
export interface SelfRule {
  parameter: string;
  required?: RequiredPermissions;
}

/** `openapi/document.ts` appends this sentence to the description of the route. */
export const ACCESS_NOTE = 'x-access-note';

function documented(required: RequiredPermissions, note: string) {
  return [
    ApiExtension('x-required-permissions', required),
    ApiExtension(ACCESS_NOTE, note),
    Problems('AUTH_FORBIDDEN'),
  ];
}

/** A requirement without an action would refuse every user. */
function requireActions(required: RequiredPermissions): void {
  const lists = Object.values(required);
  if (lists.length > 0 && lists.every((actions) => actions.length > 0)) return;
  throw new Error('A required permission needs a resource with at least one action.');
}

function namesOf(required: RequiredPermissions): string {
  return Object.entries(required)
    .flatMap(([resource, actions]) => actions.map((action) => `\`${resource}:${action}\``))
    .join(' and ');
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
