import type { Statements } from '../config/role-permissions.js';
import { problem } from '../problems/problem.js';

/** Actions by resource, such as `{ user: ['ban'] }`, in the terms of Better-Auth. */
export type RequiredPermissions = Readonly<Record<string, readonly string[]>>;

/** Every action that at least one role of a user allows, by resource. */
export type PermissionList = Readonly<Record<string, readonly string[]>>;

/** What a user may do. Requests share these objects. */
export class Permissions {
  /** Null if the user may do everything. Otherwise the statements of each role of the user. */
  private readonly roles: readonly Statements[] | null;

  constructor(
    roles: readonly Statements[] | null,
    /** The union over the roles, for clients. `can` decides without it. */
    readonly list: PermissionList,
  ) {
    this.roles = roles;
  }

  /**
   * As in Better-Auth, one role must allow all that is required. An empty list of actions is never
   * allowed. It is a property and not a method, so that the principal can share it.
   */
  readonly can = (required: RequiredPermissions): boolean => {
    const wanted = Object.entries(required);
    if (wanted.length === 0 || wanted.some(([, actions]) => actions.length === 0)) return false;
    return this.roles === null || this.roles.some((role) => allows(role, wanted));
  };

  /** The permissions that the best matching role lacks. */
  missing(required: RequiredPermissions): RequiredPermissions {
    if (this.roles === null) return {};
    const ofEachRole = [NO_STATEMENTS, ...this.roles].map((role) => missingFrom(role, required));
    return ofEachRole.reduce((best, next) => (count(next) < count(best) ? next : best));
  }

  /**
   * Whether a user with these permissions may do all that a user with the others may do. One role
   * must include each role of the other user, because `can` does not combine roles either.
   */
  includes(other: Permissions): boolean {
    const own = this.roles;
    if (own === null) return true;
    if (other.roles === null) return false;
    return other.roles.every((theirs) => {
      const wanted = [...theirs].map(([resource, actions]): Wanted => [resource, [...actions]]);
      return wanted.every(([, actions]) => actions.length === 0)
        ? true
        : own.some((role) => allows(role, wanted));
    });
  }
}

/** Throws a problem that lists the missing permissions, if there are any. */
export function requirePermissions(permissions: Permissions, required: RequiredPermissions): void {
  if (permissions.can(required)) return;
  throw problem('AUTH_FORBIDDEN', { members: { missing: permissions.missing(required) } });
}

/** Throws a problem if the other user or role has a permission that the actor lacks. */
export function requireNoMoreThan(own: Permissions, other: Permissions): void {
  if (!own.includes(other)) throw problem('ROLE_ESCALATION');
}

type Wanted = [resource: string, actions: readonly string[]];

const NO_STATEMENTS: Statements = new Map();

function allows(role: Statements, wanted: readonly Wanted[]): boolean {
  return wanted.every(([resource, actions]) => {
    const allowed = role.get(resource);
    return actions.every((action) => allowed?.has(action) === true);
  });
}

function missingFrom(role: Statements, required: RequiredPermissions): RequiredPermissions {
  const missing = Object.entries(required).map(([resource, actions]): Wanted => [
    resource,
    actions.filter((action) => role.get(resource)?.has(action) !== true),
  ]);
  return Object.fromEntries(missing.filter(([, actions]) => actions.length > 0));
}

function count(required: RequiredPermissions): number {
  return Object.values(required).flat().length;
}
