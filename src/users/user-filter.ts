import { searchedText } from '../database/bounded-key.js';
import { leftOf, MAX_CHARACTERS } from '../database/bounded-text.js';
import { likePattern } from '../database/like-pattern.js';
import { allOf, fragment, join, type SqlFragment } from '../database/sql-fragment.js';
import type { UserTable } from './user-table.js';

export interface UserFilter {
  role?: RoleFilter | undefined;
  banned?: boolean | undefined;
  emailVerified?: boolean | undefined;
  createdFrom?: Date | undefined;
  createdTo?: Date | undefined;
  /** A part of the e-mail address or the name, in upper or lower case. */
  q?: string | undefined;
  /** Many users match `q`, so the list order finds a page faster than the search index. */
  isFrequent?: boolean;
  /** Only users without a stored session of their own that began at this time or later. */
  signedInBefore?: Date | undefined;
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
  const { role, banned, emailVerified, createdFrom, createdTo, q, isFrequent = false } = filter;
  const { signedInBefore } = filter;
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
  if (q !== undefined) conditions.push(...containsText(q, isFrequent, users));
  if (signedInBefore) conditions.push(hasNoSessionSince(signedInBefore, users));
  return conditions;
}

/** Only the beginning of a text is searched, because a text can have megabytes. */
function containsText(q: string, isFrequent: boolean, users: UserTable): SqlFragment[] {
  const [email, name] = [users.column('email'), users.column('name')];
  const pattern = likePattern(q);
  // No index has the expression with the empty text, so PostgreSQL reads the list order.
  const text = isFrequent ? `(${searchedText(email, name)} || '')` : searchedText(email, name);
  const inEither = fragment(`${text} ilike ?`, pattern);
  if (!q.includes('\n')) return [inEither];
  // The searched text joins both columns with a line break, so this text could begin in one of them
  // and end in the other.
  const columns = (
    [
      ['email', email],
      ['name', name],
    ] as const
  ).map(([property, column]) =>
    fragment(`${leftOf(column, MAX_CHARACTERS[property])} ilike ?`, pattern),
  );
  const { sql, parameters } = join(columns, ' or ');
  return [inEither, { sql: `(${sql})`, parameters }];
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

/**
 * An impersonated session is no sign-in of the user. With `not exists`, PostgreSQL would join all
 * sessions, because it expects few such users. So it reads the newest session of one user after
 * another, until the page is full.
 */
function hasNoSessionSince(time: Date, users: UserTable): SqlFragment {
  const { sessions } = users;
  if (!sessions) throw new Error('A filter by sessions needs a session table.');
  const since = sessions.time('createdAt', time);
  return fragment(
    `coalesce((select max(${sessions.column('createdAt')}) from ${sessions.from}
      where ${sessions.column('userId')} = ${users.column('id')}
        and ${sessions.column('impersonatedBy')} is null), '-infinity') < ${since.sql}`,
    ...since.parameters,
  );
}
