import { Injectable } from '@nestjs/common';
import { type Cursor, decodeCursor, encodeCursor } from '../validation/cursor.js';
import type { Pagination } from '../validation/pagination.dto.js';
import { problem } from '../problems/problem.js';
import { isInvalidValue } from '../database/postgres-errors.js';
import { type UserFilter, UserListRepository } from './user-list.repository.js';
import { type UserList, type UserQuery } from './user-list.dto.js';
import { UserRead } from './user.dto.js';

/** Up to here a total is counted. */
const MAX_EXACT_TOTAL = 10_000;

@Injectable()
export class UserListService {
  constructor(private readonly pages: UserListRepository) {}

  async list(query: UserQuery): Promise<UserList> {
    const { sort, limit } = query;
    const range = rangeOf(query);
    const after = readCursor(query);
    const page = after ? null : (query.page ?? 1);
    const offset = page === null ? 0 : (page - 1) * limit;
    const { role, banned, emailVerified, q } = query;
    const stored = role === undefined ? undefined : await this.pages.storedRoleValues(role);
    const filter = { role: stored, banned, emailVerified, ...range, q };

    const found = await this.pages
      .find(filter, { sort, limit, offset, after })
      .catch((error: unknown) => {
        // Anybody can make a cursor, and PostgreSQL alone knows every date and id that there cannot be.
        throw after && isInvalidValue(error) ? refused('cursor', INVALID_CURSOR) : error;
      });
    const items = found.slice(0, limit);
    const last = items.at(-1);
    const goesOn = found.length > limit && last !== undefined;
    // Whoever sees the last page has seen how many there are.
    const seen = page !== null && !goesOn && (last || page === 1) ? offset + items.length : null;
    const now = new Date();
    return {
      items: items.map(({ user }) => UserRead.of(user, now)),
      pagination: {
        page,
        limit,
        ...(await this.totals(filter, query, seen, last ? offset + found.length : 0)),
        nextCursor: goesOn ? encodeCursor({ sort, value: last.cursorKey, id: last.user.id }) : null,
      },
    };
  }

  private async totals(
    filter: UserFilter,
    { limit, total: wanted }: UserQuery,
    seen: number | null,
    least: number,
  ): Promise<Pick<Pagination, 'total' | 'totalPages' | 'totalIsEstimate'>> {
    if (wanted === 'none') return { total: null, totalPages: null, totalIsEstimate: false };
    const exact = seen ?? (wanted === 'exact' ? await this.pages.countUpTo(filter, null) : null);
    const total = exact ?? Math.max(least, await this.estimatedTotal(filter));
    return {
      total,
      totalPages: Math.ceil(total / limit),
      totalIsEstimate: exact === null && total > MAX_EXACT_TOTAL,
    };
  }

  /** Where more are expected than are counted, not one is: to find so many of a search takes long. */
  private async estimatedTotal(filter: UserFilter): Promise<number> {
    const expected = await this.pages.estimate(filter);
    if (expected > MAX_EXACT_TOTAL) return expected;
    // The statistics may lag behind; the count does not.
    return this.pages.countUpTo(filter, MAX_EXACT_TOTAL);
  }
}

/** As PostgreSQL writes a time, with a zone and without. */
const TIME = /^\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d(:\d\d){0,2})?$/;
const ANY_TEXT = /^/;
const INVALID_CURSOR = 'cursor is not one of this list in this order';

function readCursor({ cursor, page, sort }: UserQuery): Cursor | null {
  if (cursor === undefined) return null;
  if (page !== undefined) throw refused('cursor', 'cursor and page exclude each other');
  const place = decodeCursor(cursor, sort, sort.endsWith('createdAt') ? TIME : ANY_TEXT);
  if (!place) throw refused('cursor', INVALID_CURSOR);
  return place;
}

function rangeOf({ createdFrom, createdTo }: UserQuery): { createdFrom?: Date; createdTo?: Date } {
  const from = createdFrom === undefined ? undefined : new Date(createdFrom);
  const to = createdTo === undefined ? undefined : new Date(createdTo);
  if (from && to && from > to)
    throw refused('createdFrom', 'createdFrom must not be after createdTo');
  return { ...(from ? { createdFrom: from } : {}), ...(to ? { createdTo: to } : {}) };
}

function refused(field: string, message: string) {
  return problem('VALIDATION_ERROR', { errors: [{ field, message }] });
}
