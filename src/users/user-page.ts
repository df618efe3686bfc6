import type { UserRow } from '../access/principal.js';
import { type JoinedRow, toUser } from '../better-auth/rows.js';
import type { Cursor } from '../validation/cursor.js';
import type { UserSort } from './user-list.dto.js';

export interface PageRequest {
  sort: UserSort;
  limit: number;
  offset: number;
  cursor: Cursor | null;
}

/** A user and its cursor key. The key has microseconds, which a JavaScript date does not have. */
export interface UserWithCursor {
  user: UserRow;
  cursorKey: string;
}

/** Reads a row whose column `place` is the key of the order. */
export function withCursor(row: JoinedRow): UserWithCursor {
  return { user: toUser(row), cursorKey: String(row['place']) };
}

export function parseSort(sort: UserSort): {
  property: 'createdAt' | 'email' | 'name';
  direction: 'asc' | 'desc';
} {
  const isDescending = sort.startsWith('-');
  const property = (isDescending ? sort.slice(1) : sort) as 'createdAt' | 'email' | 'name';
  return { property, direction: isDescending ? 'desc' : 'asc' };
}
