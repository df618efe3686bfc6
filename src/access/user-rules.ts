import { DEFAULT_ROLE } from '../config/role-permissions.js';
import type { UserRow } from './principal.js';

/** Better-Auth lifts a ban only at the next sign-in after its end, so `banned` may be stale. */
export function isBanned(user: Pick<UserRow, 'banned' | 'banExpires'>, now: Date): boolean {
  // PostgreSQL's `infinity` is an invalid date here and compares false. It bans forever, like null.
  return user.banned === true && !(user.banExpires !== null && user.banExpires <= now);
}

/** Split as in Better-Auth: at commas, untrimmed, case-sensitive. No role is the default. */
export function rolesOf(user: Pick<UserRow, 'role'>): string[] {
  return (user.role || DEFAULT_ROLE).split(',');
}

export interface AdminRule {
  ADMIN_ROLES: readonly string[];
  ADMIN_USER_IDS: readonly string[];
}

export function isAdmin(user: Pick<UserRow, 'id' | 'role'>, rule: AdminRule): boolean {
  return (
    rule.ADMIN_USER_IDS.includes(user.id) ||
    rolesOf(user).some((role) => rule.ADMIN_ROLES.includes(role))
  );
}
