import { Injectable } from '@nestjs/common';
import { isInvalidValue } from '../database/postgres-errors.js';
import type { RowEstimate } from '../database/row-count.js';
import { type Cursor, decodeCursor, encodeCursor } from '../validation/cursor.js';
import { invalidField } from '../validation/invalid-field.js';
import type { Pagination } from '../validation/pagination.dto.js';
import { readTimes } from '../validation/time-range.js';
import type { UserFilter } from './user-filter.js';
import { ListedUser, type UserList, type UserQuery } from './user-list.dto.js';
import { UserListRepository } from './user-list.repository.js';
import type { PageRequest, UserWithCursor } from './user-page.js';
import { UserSessionsRepository } from './user-sessions.repository.js';

/** Larger totals are estimates, unless the client wants an exact total. */
const MAX_EXACT_TOTAL = 10_000;

/** A search that matches more users than this reads them in the order of the list. */
const MAX_MATCHES_READ = 20_000;

@Injectable()
export class UserListService {
  constructor(
    private readonly users: UserListRepository,
    private readonly sessions: UserSessionsRepository,
  ) {}

  /** Returns one page of the users that match a query. */
  async list(query: UserQuery): Promise<UserList> {
    const { role, limit } = query;
    if (query.signedInBefore !== undefined && !this.sessions.areStored) {
      throw invalidField('signedInBefore', 'this database stores no sessions');
    }
    const filterWithoutRole = readFilter(query);
    const request = readPageRequest(query);
    const filter = {
      ...filterWithoutRole,
      role: role === undefined ? undefined : await this.users.findRoleTexts(role),
    };
    const { page, totals } = await this.find(filter, query.total, request);
    const now = new Date();
    const ids = page.rows.map(({ user }) => user.id);
    const summaries =
      query.include === 'sessions' ? await this.sessions.summarize(ids, now) : undefined;
    return {
      items: page.rows.map(({ user }) => ListedUser.from(user, now, summaries)),
      pagination: {
        page: request.pageNumber,
        limit,
        ...totals,
        nextCursor: nextCursorOf(request, page),
      },
    };
  }

  private async find(
    filter: UserFilter,
    mode: UserQuery['total'],
    request: NumberedPageRequest,
  ): Promise<Found> {
    try {
      if (filter.q === undefined || mode === 'none') {
        return await this.findMany(filter, mode, request, null);
      }
      const estimate = await this.users.estimate(filter);
      if (!isCountable(estimate)) return await this.findMany(filter, mode, request, estimate);
      const few = await this.users.findPageOfFew(filter, request, MAX_MATCHES_READ);
      if (few) return { page: pageOf(few.rows, request), totals: totalsOf(few.total, request) };
      // The statistics can be wrong about a text, and the next query must not rely on them again.
      const many = { rows: MAX_MATCHES_READ + 1, isQuick: false };
      return await this.findMany({ ...filter, isFrequent: true }, mode, request, many);
    } catch (error) {
      // Clients can forge a cursor, and only PostgreSQL can reject every impossible date and id.
      throw request.cursor && isInvalidValue(error)
        ? invalidField('cursor', INVALID_CURSOR)
        : error;
    }
  }

  private async findMany(
    filter: UserFilter,
    mode: UserQuery['total'],
    request: NumberedPageRequest,
    estimate: RowEstimate | null,
  ): Promise<Found> {
    const page = pageOf(await this.users.findPage(filter, request), request);
    if (mode === 'none') {
      return { page, totals: { total: null, totalPages: null, totalIsEstimate: false } };
    }
    const exact =
      totalOfLastPage(request, page) ??
      (mode === 'exact' ? await this.users.count({ ...filter, isFrequent: false }, null) : null);
    if (exact !== null) return { page, totals: totalsOf(exact, request) };
    const { users, isExact } = await this.estimateTotal(filter, estimate);
    const total = Math.max(minimumTotal(request, page), users);
    return { page, totals: { ...totalsOf(total, request), totalIsEstimate: !isExact } };
  }

  /** A total is counted if PostgreSQL expects few users, and expects to find them quickly. */
  private async estimateTotal(filter: UserFilter, known: RowEstimate | null) {
    const estimate = known ?? (await this.users.estimate(filter));
    if (!isCountable(estimate)) return { users: estimate.rows, isExact: false };
    // The statistics can be out of date, so this counts the rows.
    const users = await this.users.count(filter, MAX_EXACT_TOTAL);
    return { users, isExact: users <= MAX_EXACT_TOTAL };
  }
}

function isCountable({ rows, isQuick }: RowEstimate): boolean {
  return rows <= MAX_EXACT_TOTAL && isQuick;
}

interface Found {
  page: Page;
  totals: Totals;
}

interface NumberedPageRequest extends PageRequest {
  /** Null if the client uses a cursor. */
  pageNumber: number | null;
}

interface Page {
  rows: UserWithCursor[];
  hasNext: boolean;
}

type Totals = Pick<Pagination, 'total' | 'totalPages' | 'totalIsEstimate'>;

/** A time as PostgreSQL writes it, with or without a zone. */
const TIME = /^\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d(:\d\d){0,2})?$/;
const ANY_TEXT = /^/;
const INVALID_CURSOR = 'cursor is not one of this list in this order';

function readFilter(query: UserQuery): UserFilter {
  const { banned, emailVerified, q } = query;
  const signedInBefore =
    query.signedInBefore === undefined ? undefined : new Date(query.signedInBefore);
  return { ...readTimes(query), banned, emailVerified, q, signedInBefore };
}

function readPageRequest(query: UserQuery): NumberedPageRequest {
  const { sort, limit } = query;
  const cursor = readCursor(query);
  if (cursor) return { sort, limit, cursor, offset: 0, pageNumber: null };
  const pageNumber = query.page ?? 1;
  return { sort, limit, cursor, offset: (pageNumber - 1) * limit, pageNumber };
}

function readCursor({ cursor, page, sort }: UserQuery): Cursor | null {
  if (cursor === undefined) return null;
  if (page !== undefined) throw invalidField('cursor', 'cursor and page exclude each other');
  const decoded = decodeCursor(cursor, sort, sort.endsWith('createdAt') ? TIME : ANY_TEXT);
  if (!decoded) throw invalidField('cursor', INVALID_CURSOR);
  return decoded;
}

/** The query asks for one row more than the page has. */
function pageOf(rows: UserWithCursor[], { limit }: PageRequest): Page {
  return { rows: rows.slice(0, limit), hasNext: rows.length > limit };
}

function totalsOf(total: number, { limit }: PageRequest): Totals {
  return { total, totalPages: Math.ceil(total / limit), totalIsEstimate: false };
}

function nextCursorOf({ sort }: PageRequest, { rows, hasNext }: Page): string | null {
  const last = rows.at(-1);
  if (!hasNext || !last) return null;
  return encodeCursor({ sort, value: last.cursorKey, id: last.user.id });
}

/** The last page implies the total. A page beyond the last one does not, and is empty. */
function totalOfLastPage(
  { offset, pageNumber }: NumberedPageRequest,
  { rows, hasNext }: Page,
): number | null {
  if (pageNumber === null || hasNext) return null;
  return rows.length > 0 || pageNumber === 1 ? offset + rows.length : null;
}

/** The page proves that the total is at least this number. */
function minimumTotal({ offset }: PageRequest, { rows, hasNext }: Page): number {
  return rows.length === 0 ? 0 : offset + rows.length + (hasNext ? 1 : 0);
}
