import type { SessionRow, UserRow } from '../access/principal.js';
import { leftOf, MAX_CHARACTERS } from '../database/bounded-text.js';
import type { PhysicalTable } from '../database/physical-schema.js';

/** A user, and in `s_` columns a session, as `userColumns` and `sessionColumns` select them. */
export type JoinedRow = Record<string, string | number | boolean | null>;

const USER_TEXTS = ['id', 'email', 'name', 'image', 'role', 'banReason'] as const;
const USER_FLAGS = ['emailVerified', 'banned'] as const;
const USER_TIMES = ['banExpires', 'createdAt', 'updatedAt'] as const;
const SESSION_TEXTS = ['id', 'userId', 'ipAddress', 'userAgent', 'impersonatedBy'] as const;
const SESSION_TIMES = ['createdAt', 'updatedAt', 'expiresAt'] as const;

export function userColumns(user: PhysicalTable): string {
  return [
    ...USER_TEXTS.map((name) => `${boundedText(`u.${column(user, name)}`, name)} as "${name}"`),
    ...USER_FLAGS.map((name) => `u.${column(user, name)} as "${name}"`),
    ...USER_TIMES.map((name) => `${milliseconds(`u.${column(user, name)}`)} as "${name}"`),
  ].join(', ');
}

export function sessionColumns(session: PhysicalTable): string {
  return [
    ...SESSION_TEXTS.map(
      (name) => `${boundedText(`s.${column(session, name)}`, name)} as "s_${name}"`,
    ),
    ...SESSION_TIMES.map((name) => `${milliseconds(`s.${column(session, name)}`)} as "s_${name}"`),
  ].join(', ');
}

function boundedText(column: string, property: string): string {
  const limit = (MAX_CHARACTERS as Record<string, number | undefined>)[property];
  return limit === undefined ? `${column}::text` : leftOf(`${column}::text`, limit);
}

/** Milliseconds are the same for columns with and without a time zone, in every session zone. */
function milliseconds(time: string): string {
  return `(extract(epoch from ${time}) * 1000)::float8`;
}

export function column(table: PhysicalTable, property: string): string {
  const found = table.columns[property];
  if (!found) throw new Error(`The service does not start without ${table.name}.${property}.`);
  return `"${found.name}"`;
}

export function toUser(row: JoinedRow): UserRow {
  return {
    id: String(row['id']),
    email: String(row['email']),
    emailVerified: row['emailVerified'] === true,
    name: String(row['name']),
    image: text(row['image']),
    role: text(row['role']),
    banned: row['banned'] === true,
    banReason: text(row['banReason']),
    banExpires: Number.isFinite(row['banExpires']) ? time(row['banExpires']) : null,
    createdAt: time(row['createdAt']),
    updatedAt: time(row['updatedAt']),
  };
}

export function toSession(row: JoinedRow): SessionRow {
  return {
    id: String(row['s_id']),
    userId: String(row['s_userId']),
    createdAt: time(row['s_createdAt']),
    updatedAt: time(row['s_updatedAt']),
    expiresAt: time(row['s_expiresAt']),
    ipAddress: text(row['s_ipAddress']),
    userAgent: text(row['s_userAgent']),
    impersonatedBy: text(row['s_impersonatedBy']),
  };
}

function text(value: JoinedRow[string] | undefined): string | null {
  return value == null ? null : String(value);
}

function time(value: JoinedRow[string] | undefined): Date {
  return new Date(Number(value));
}
