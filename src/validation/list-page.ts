import { isInvalidValue } from '../database/postgres-errors.js';
import type { RowEstimate } from '../database/row-count.js';
import { type Cursor, decodeCursor, encodeCursor } from './cursor.js';
import { invalidField } from './invalid-field.js';
import type { Pagination } from './pagination.dto.js';

/** The parameters of a list that has page numbers, cursors and totals. */
export interface ListQuery<Sort extends string> {
  page?: number;
  limit: number;
  cursor?: string;
  sort: Sort;
  total: 'estimate' | 'exact' | 'none';
}

export interface PageRequest<Sort extends string = string> {
  sort: Sort;
  limit: number;
  offset: number;
  cursor: Cursor | null;
}

/** A row and its cursor key. The key has microseconds, which a JavaScript date does not have. */
export interface Placed {
  id: string;
  cursorKey: string;
}

/** The queries of one list with one filter. */
export interface ListSource<Row extends Placed, Sort extends string> {
  /** Finds a page, and one more row if there is a next page. */
  findPage(request: PageRequest<Sort>): Promise<Row[]>;
  /** Counts all rows. With a maximum, it can stop at the maximum plus one. */
  count(max: number | null): Promise<number>;
  /** Returns what PostgreSQL's planner expects, without a count. */
  estimate(): Promise<RowEstimate>;
}

export interface ListPage<Row> {
  rows: Row[];
  pagination: Pagination;
}

/** Larger totals are estimates, unless the client wants an exact total. */
const MAX_EXACT_TOTAL = 10_000;

/** Reads one page of a list that is sorted by a time, and the total. */
export async function readList<Row extends Placed, Sort extends string>(
  query: ListQuery<Sort>,
  source: ListSource<Row, Sort>,
): Promise<ListPage<Row>> {
  const request = readPageRequest(query);
  const page = await findPage(request, source);
  const totals = await readTotals(query, request, page, source);
  return {
    rows: page.rows,
    pagination: {
      page: request.pageNumber,
      limit: query.limit,
      ...totals,
      nextCursor: nextCursorOf(request, page),
    },
  };
}

interface Total {
  rows: number;
  isExact: boolean;
}

/** The rows are counted if PostgreSQL expects few of them, and expects to find them quickly. */
async function countOrEstimate({
  count,
  estimate,
}: Pick<ListSource<Placed, string>, 'count' | 'estimate'>): Promise<Total> {
  const expected = await estimate();
  if (expected.rows > MAX_EXACT_TOTAL || !expected.isQuick) {
    return { rows: expected.rows, isExact: false };
  }
  // The statistics can be out of date, so this counts the rows.
  const rows = await count(MAX_EXACT_TOTAL);
  return { rows, isExact: rows <= MAX_EXACT_TOTAL };
}

interface NumberedPageRequest<Sort extends string = string> extends PageRequest<Sort> {
  /** Null if the client uses a cursor. */
  pageNumber: number | null;
}

interface FoundPage<Row = Placed> {
  rows: Row[];
  hasNext: boolean;
}

type Totals = Pick<Pagination, 'total' | 'totalPages' | 'totalIsEstimate'>;

/** A time as PostgreSQL writes it, with or without a zone. */
const TIME = /^\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d(:\d\d){0,2})?$/;
const INVALID_CURSOR = 'cursor is not one of this list in this order';

function readPageRequest<Sort extends string>(query: ListQuery<Sort>): NumberedPageRequest<Sort> {
  const { sort, limit } = query;
  const cursor = readCursor(query);
  if (cursor) return { sort, limit, cursor, offset: 0, pageNumber: null };
  const pageNumber = query.page ?? 1;
  return { sort, limit, cursor, offset: (pageNumber - 1) * limit, pageNumber };
}

function readCursor({ cursor, page, sort }: ListQuery<string>): Cursor | null {
  if (cursor === undefined) return null;
  if (page !== undefined) throw invalidField('cursor', 'cursor and page exclude each other');
  const decoded = decodeCursor(cursor, sort, TIME);
  if (!decoded) throw invalidField('cursor', INVALID_CURSOR);
  return decoded;
}

async function findPage<Row extends Placed, Sort extends string>(
  request: PageRequest<Sort>,
  source: ListSource<Row, Sort>,
): Promise<FoundPage<Row>> {
  try {
    const rows = await source.findPage(request);
    const { limit } = request;
    return { rows: rows.slice(0, limit), hasNext: rows.length > limit };
  } catch (error) {
    // Clients can forge a cursor, and only PostgreSQL can reject every impossible date and id.
    throw request.cursor && isInvalidValue(error) ? invalidField('cursor', INVALID_CURSOR) : error;
  }
}

async function readTotals<Row extends Placed, Sort extends string>(
  { limit, total: mode }: ListQuery<Sort>,
  request: NumberedPageRequest<Sort>,
  page: FoundPage<Row>,
  source: ListSource<Row, Sort>,
): Promise<Totals> {
  if (mode === 'none') return { total: null, totalPages: null, totalIsEstimate: false };
  const exact =
    totalOfLastPage(request, page) ?? (mode === 'exact' ? await source.count(null) : null);
  if (exact !== null) return totalsOf(exact, limit, true);
  const { rows, isExact } = await countOrEstimate(source);
  return totalsOf(Math.max(minimumTotal(request, page), rows), limit, isExact);
}

function totalsOf(total: number, limit: number, isExact: boolean): Totals {
  return { total, totalPages: Math.ceil(total / limit), totalIsEstimate: !isExact };
}

function nextCursorOf({ sort }: PageRequest, { rows, hasNext }: FoundPage): string | null {
  const last = rows.at(-1);
  if (!hasNext || !last) return null;
  return encodeCursor({ sort, value: last.cursorKey, id: last.id });
}

/** The last page implies the total. A page beyond the last one does not, and is empty. */
function totalOfLastPage(
  { offset, pageNumber }: NumberedPageRequest,
  { rows, hasNext }: FoundPage,
): number | null {
  if (pageNumber === null || hasNext) return null;
  return rows.length > 0 || pageNumber === 1 ? offset + rows.length : null;
}

/** The page proves that the total is at least this number. */
function minimumTotal({ offset }: PageRequest, { rows, hasNext }: FoundPage): number {
  return rows.length === 0 ? 0 : offset + rows.length + (hasNext ? 1 : 0);
}
