import { leftOf, MAX_CHARACTERS } from '../database/bounded-text.js';
import { likePattern } from '../database/like-pattern.js';
import { allOf, fragment, join, type SqlFragment } from './sql-fragment.js';
import type { UserTable } from './user-table.js';

export interface UserFilter {
  role?: RoleFilter | undefined;
  banned?: boolean | undefined;
  emailVerified?: boolean | undefined;
  createdFrom?: Date | undefined;
  createdTo?: Date | undefined;
  /** A part of the e-mail address or the name, in upper or lower case. */
  q?: string | undefined;
}

/** Users who have a role. `UserListRepository` explains how it finds them. */
export interface RoleFilter {
  role: string;
  /** The stored texts that contain the role, or null if their list is not complete. */
  texts: (string | null)[] | null;
}

/** The `where` condition of a filter. */
export function conditionOf(filter: UserFilter, users: UserTable): SqlFragment {
  return allOf(conditionsOf(filter, users));
}

export function conditionsOf(filter: UserFilter, users: UserTable): SqlFragment[] {
  const { role, banned, emailVerified, createdFrom, createdTo, q } = filter;
  const conditions: SqlFragment[] = [];
  if (role !== undefined) conditions.push(hasRole(role, users));
  if (banned !== undefined) conditions.push(isBanned(banned, users));
  if (emailVerified !== undefined) {
    conditions.push(fragment(`${emailVerified ? '' : 'not '}${users.column('emailVerified')}`));
  }
  const createdAt = fragment(users.column('createdAt'));
  if (createdFrom) {
    conditions.push(join([createdAt, users.time('createdAt', createdFrom)], ' >= '));
  }
  if (createdTo) {
    conditions.push(join([createdAt, users.time('createdAt', createdTo)], ' <= '));
  }
  if (q !== undefined) {
    // Only the beginning of a text is searched, because a text can have megabytes.
    const [email, name] = (['email', 'name'] as const).map((property) =>
      leftOf(users.column(property), MAX_CHARACTERS[property]),
    );
    const sql = `(${email} ilike ? or ${name} ilike ?)`;
    conditions.push(fragment(sql, likePattern(q), likePattern(q)));
  }
  return conditions;
}

/** `rolesOf` of `user-rules.ts` as a condition. */
function hasRole({ role, texts }: RoleFilter, users: UserTable): SqlFragment {
  if (texts === null) {
    const roles = `string_to_array(coalesce(nullif(${users.column('role')}, ''), 'user'), ',')`;
    return fragment(`${roles} @> array[?]`, role);
  }
  const key = users.column('role');
  const [text] = texts;
  if (texts.length === 1) {
    return text === null ? fragment(`${key} is null`) : fragment(`${key} = ?`, text);
  }
  const notNull = texts.filter((value) => value !== null);
  const list = notNull.map(() => '?').join(', ');
  const orNull = texts.includes(null) ? ` or ${key} is null` : '';
  return fragment(`(${key} = any(array[${list}]::text[])${orNull})`, ...notNull);
}

/** `isBanned` of `user-rules.ts` as a condition. */
function isBanned(isWanted: boolean, users: UserTable): SqlFragment {
  const banned = users.column('banned');
  const expires = users.column('banExpires');
  const now = users.time('banExpires', new Date());
  const sql = isWanted
    ? `${banned} and (${expires} is null or ${expires} > ${now.sql})`
    : // Not written with NOT, because NOT of a comparison with NULL is NULL.
      `(${banned} is null or not ${banned} or ${expires} <= ${now.sql})`;
  return fragment(sql, ...now.parameters);
}
