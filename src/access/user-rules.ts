import type { UserRow } from './principal.js';

/** Better-Auth lifts a ban lazily, at the next sign-in, so the row alone does not say. */
export function isBanned(user: Pick<UserRow, 'banned' | 'banExpires'>, now: Date): boolean {
  // PostgreSQL's `infinity` is no date here, and compares as nothing: it bans for ever, as null does.
  return user.banned === true && !(user.banExpires !== null && user.banExpires <= now);
}

/** Split as Better-Auth splits it: at commas, untrimmed, case-sensitive; none means `user`. */
export function rolesOf(user: Pick<UserRow, 'role'>): string[] {
  return (user.role || 'user').split(',');
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
