import { isInvalidValue } from '../database/postgres-errors.js';
import type { RowEstimate } from '../database/row-count.js';
import { type Cursor, decodeCursor, encodeCursor } from './cursor.js';
import { invalidField } from './invalid-field.js';
import type { PageQuery, Pagination } from './pagination.dto.js';

type ListQuery<Sort extends string> = PageQuery & { sort: Sort };

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

interface Total {
  rows: number;
  isExact: boolean;
}

export interface FoundPage<Row> {
  /** The rows of the page, and one more row if there is a next page. */
  rows: Row[];
  /** The total, if finding the page also showed it. */
  total?: Total;
}

/** The queries of one list with one filter. */
export interface ListSource<Row extends Placed, Sort extends string> {
  findPage(request: PageRequest<Sort>): Promise<FoundPage<Row>>;
  /** Counts all rows. With a maximum, it can stop at the maximum plus one. */
  count(max: number | null): Promise<number>;
  /** Returns what PostgreSQL's planner expects, without a count. */
  estimate(): Promise<RowEstimate>;
}

/** Larger totals are estimates, unless the client wants an exact total. */
const MAX_EXACT_TOTAL = 10_000;

/** Reads one page of a list, and its total. */
export async function readList<Row extends Placed, Sort extends string>(
  query: ListQuery<Sort>,
  source: ListSource<Row, Sort>,
): Promise<{ rows: Row[]; pagination: Pagination }> {
  const { limit } = query;
  const request = readPageRequest(query);
  const page = await findPage(request, source);
  const total = await readTotal(query.total, request, page, source);
  return {
    rows: page.rows,
    pagination: {
      page: request.cursor ? null : (query.page ?? 1),
      limit,
      total: total && total.rows,
      totalPages: total && Math.ceil(total.rows / limit),
      totalIsEstimate: total !== null && !total.isExact,
      nextCursor: page.nextCursor,
    },
  };
}

interface Page<Row> {
  rows: Row[];
  /** Null on the last page. */
  nextCursor: string | null;
}

/** Removes the row that was found behind the page, and creates the cursor of the next page. */
export function cutPage<Row>(
  found: Row[],
  limit: number,
  cursorOf: (last: Row) => Cursor,
): Page<Row> {
  const rows = found.slice(0, limit);
  const last = rows.at(-1);
  return { rows, nextCursor: found.length > limit && last ? encodeCursor(cursorOf(last)) : null };
}

/** The rows are counted if PostgreSQL expects few of them, and expects to find them quickly. */
export function isCountable({ rows, isQuick }: RowEstimate): boolean {
  return rows <= MAX_EXACT_TOTAL && isQuick;
}

export function parseSort<Sort extends string>(sort: Sort) {
  const isDescending = sort.startsWith('-');
  return {
    property: (isDescending ? sort.slice(1) : sort) as SortProperty<Sort>,
    direction: isDescending ? ('desc' as const) : ('asc' as const),
  };
}

type SortProperty<Sort extends string> = Sort extends `-${infer Property}` ? Property : Sort;

/** A time as PostgreSQL writes it, with or without a zone. */
const TIME = /^\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d(:\d\d){0,2})?$/;
const ANY_TEXT = /^/;
const INVALID_CURSOR = 'cursor is not one of this list in this order';

function readPageRequest<Sort extends string>(query: ListQuery<Sort>): PageRequest<Sort> {
  const { sort, limit, page = 1 } = query;
  const cursor = readCursor(query);
  return { sort, limit, cursor, offset: cursor ? 0 : (page - 1) * limit };
}

function readCursor({ cursor, page, sort }: ListQuery<string>): Cursor | null {
  if (cursor === undefined) return null;
  if (page !== undefined) throw invalidField('cursor', 'cursor and page exclude each other');
  // The properties that contain a time have names such as `createdAt`.
  const decoded = decodeCursor(cursor, sort, sort.endsWith('At') ? TIME : ANY_TEXT);
  if (!decoded) throw invalidField('cursor', INVALID_CURSOR);
  return decoded;
}

interface PageWithTotal<Row> extends Page<Row> {
  total: Total | undefined;
}

async function findPage<Row extends Placed, Sort extends string>(
  request: PageRequest<Sort>,
  source: ListSource<Row, Sort>,
): Promise<PageWithTotal<Row>> {
  const { sort, limit, cursor } = request;
  try {
    const { rows, total } = await source.findPage(request);
    const page = cutPage(rows, limit, ({ cursorKey, id }) => ({ sort, value: cursorKey, id }));
    return { ...page, total };
  } catch (error) {
    // Clients can forge a cursor, and only PostgreSQL can reject every impossible date and id.
    throw cursor && isInvalidValue(error) ? invalidField('cursor', INVALID_CURSOR) : error;
  }
}

async function readTotal<Row extends Placed, Sort extends string>(
  mode: PageQuery['total'],
  request: PageRequest<Sort>,
  page: PageWithTotal<Row>,
  source: ListSource<Row, Sort>,
): Promise<Total | null> {
  if (mode === 'none') return null;
  const totalOfPage = totalOfLastPage(request, page);
  if (totalOfPage !== null) return { rows: totalOfPage, isExact: true };
  if (mode === 'exact' && !page.total?.isExact) {
    return { rows: await source.count(null), isExact: true };
  }
  const total = page.total ?? (await countOrEstimate(source));
  return { ...total, rows: Math.max(minimumTotal(request, page), total.rows) };
}

async function countOrEstimate<Row extends Placed, Sort extends string>(
  source: ListSource<Row, Sort>,
): Promise<Total> {
  const estimate = await source.estimate();
  if (!isCountable(estimate)) return { rows: estimate.rows, isExact: false };
  // The statistics can be out of date, so this counts the rows.
  const rows = await source.count(MAX_EXACT_TOTAL);
  return { rows, isExact: rows <= MAX_EXACT_TOTAL };
}

/** The last page implies the total. A page beyond the last one does not, and is empty. */
function totalOfLastPage(
  { cursor, offset }: PageRequest,
  { rows, nextCursor }: Page<Placed>,
): number | null {
  if (cursor || nextCursor !== null) return null;
  return rows.length > 0 || offset === 0 ? offset + rows.length : null;
}

/** The page proves that the total is at least this number. */
function minimumTotal({ offset }: PageRequest, { rows, nextCursor }: Page<Placed>): number {
  if (rows.length === 0) return 0;
  return offset + rows.length + (nextCursor === null ? 0 : 1);
}
