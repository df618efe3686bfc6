import { Injectable } from '@nestjs/common';
import { isInvalidValue } from '../database/postgres-errors.js';
import { problem } from '../problems/problem.js';
import { type Cursor, decodeCursor, encodeCursor } from '../validation/cursor.js';
import type { Pagination } from '../validation/pagination.dto.js';
import type { UserFilter } from './user-filter.js';
import type { UserList, UserQuery } from './user-list.dto.js';
import {
  type PageRequest,
  UserListRepository,
  type UserWithCursor,
} from './user-list.repository.js';
import { UserRead } from './user.dto.js';

/** Larger totals are estimates, unless the client wants an exact total. */
const MAX_EXACT_TOTAL = 10_000;

@Injectable()
export class UserListService {
  constructor(private readonly users: UserListRepository) {}

  /** Returns one page of the users that match a query. */
  async list(query: UserQuery): Promise<UserList> {
    const { role, limit } = query;
    const filterWithoutRole = readFilter(query);
    const request = readPageRequest(query);
    const filter = {
      ...filterWithoutRole,
      role: role === undefined ? undefined : await this.users.findRoleTexts(role),
    };
    const page = await this.findPage(filter, request);
    const totals = await this.totals(filter, query, request, page);
    const now = new Date();
    return {
      items: page.rows.map(({ user }) => UserRead.of(user, now)),
      pagination: {
        page: request.pageNumber,
        limit,
        ...totals,
        nextCursor: nextCursorOf(request, page),
      },
    };
  }

  private async findPage(filter: UserFilter, request: PageRequest): Promise<Page> {
    try {
      const rows = await this.users.findPage(filter, request);
      const { limit } = request;
      return { rows: rows.slice(0, limit), hasNext: rows.length > limit };
    } catch (error) {
      // Clients can forge a cursor, and only PostgreSQL can reject every impossible date and id.
      throw request.cursor && isInvalidValue(error)
        ? invalidField('cursor', INVALID_CURSOR)
        : error;
    }
  }

  private async totals(
    filter: UserFilter,
    { limit, total: mode }: UserQuery,
    request: NumberedPageRequest,
    page: Page,
  ): Promise<Totals> {
    if (mode === 'none') return { total: null, totalPages: null, totalIsEstimate: false };
    const exact =
      totalOfLastPage(request, page) ??
      (mode === 'exact' ? await this.users.count(filter, null) : null);
    const total = exact ?? Math.max(minimumTotal(request, page), await this.estimateTotal(filter));
    return {
      total,
      totalPages: Math.ceil(total / limit),
      totalIsEstimate: exact === null && total > MAX_EXACT_TOTAL,
    };
  }

  /** A large expected total is not counted, because a search can take long to find so many rows. */
  private async estimateTotal(filter: UserFilter): Promise<number> {
    const expected = await this.users.estimate(filter);
    if (expected > MAX_EXACT_TOTAL) return expected;
    // The statistics can be out of date, so this counts the rows.
    return this.users.count(filter, MAX_EXACT_TOTAL);
  }
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
  const createdFrom = query.createdFrom === undefined ? undefined : new Date(query.createdFrom);
  const createdTo = query.createdTo === undefined ? undefined : new Date(query.createdTo);
  if (createdFrom && createdTo && createdFrom > createdTo) {
    throw invalidField('createdFrom', 'createdFrom must not be after createdTo');
  }
  return { banned, emailVerified, createdFrom, createdTo, q };
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

function invalidField(field: string, message: string) {
  return problem('VALIDATION_ERROR', { errors: [{ field, message }] });
}
