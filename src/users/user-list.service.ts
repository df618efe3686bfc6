import { Injectable } from '@nestjs/common';
import { type Cursor, decodeCursor, encodeCursor } from '../common/cursor.js';
import type { Pagination } from '../common/page.dto.js';
import { problem } from '../common/problem.js';
import { type UserFilter, UserPagesRepository } from './user-pages.repository.js';
import { type UserList, type UserQuery } from './user-list.dto.js';
import { UserRead } from './user.dto.js';

/** Up to here a total is counted. */
const COUNTED = 10_000;

@Injectable()
export class UserListService {
  constructor(private readonly pages: UserPagesRepository) {}

  async list(query: UserQuery): Promise<UserList> {
    const { sort, limit } = query;
    const filter = filterOf(query);
    const after = readCursor(query);
    const page = after ? null : (query.page ?? 1);
    const offset = page === null ? 0 : (page - 1) * limit;

    const found = await this.pages.find(filter, { sort, limit, offset, after });
    const items = found.slice(0, limit);
    const last = items.at(-1);
    const goesOn = found.length > limit && last !== undefined;
    const now = new Date();
    return {
      items: items.map((user) => UserRead.of(user, now)),
      pagination: {
        page,
        limit,
        ...(await this.totals(filter, limit, query.total)),
        nextCursor: goesOn ? encodeCursor(await this.pages.placeOf(last, sort)) : null,
      },
    };
  }

  private async totals(
    filter: UserFilter,
    limit: number,
    wanted: UserQuery['total'],
  ): Promise<Pick<Pagination, 'total' | 'totalPages' | 'totalIsEstimate'>> {
    if (wanted === 'none') return { total: null, totalPages: null, totalIsEstimate: false };
    const counted = await this.pages.countUpTo(filter, wanted === 'exact' ? null : COUNTED);
    const totalIsEstimate = wanted !== 'exact' && counted > COUNTED;
    // The statistics may lag behind; the count does not.
    const total = totalIsEstimate ? Math.max(counted, await this.pages.estimate(filter)) : counted;
    return { total, totalPages: Math.ceil(total / limit), totalIsEstimate };
  }
}

/** As PostgreSQL writes a time, with a zone and without. */
const TIME = /^\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d(:\d\d){0,2})?$/;
const ANY_TEXT = /^/;

function readCursor({ cursor, page, sort }: UserQuery): Cursor | null {
  if (cursor === undefined) return null;
  if (page !== undefined) throw refused('cursor', 'cursor and page exclude each other');
  const place = decodeCursor(cursor, sort, sort.endsWith('createdAt') ? TIME : ANY_TEXT);
  if (!place) throw refused('cursor', 'cursor is not one of this list in this order');
  return place;
}

function filterOf({
  role,
  banned,
  emailVerified,
  createdFrom,
  createdTo,
  q,
}: UserQuery): UserFilter {
  const from = createdFrom === undefined ? undefined : new Date(createdFrom);
  const to = createdTo === undefined ? undefined : new Date(createdTo);
  if (from && to && from > to)
    throw refused('createdFrom', 'createdFrom must not be after createdTo');
  return { role, banned, emailVerified, createdFrom: from, createdTo: to, q };
}

function refused(field: string, message: string) {
  return problem('VALIDATION_ERROR', { errors: [{ field, message }] });
}
