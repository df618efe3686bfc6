import type { EntityManager } from '@mikro-orm/postgresql';
import type { SqlFragment } from './sql-fragment.js';

/** What PostgreSQL's planner expects of a condition, from its statistics. */
export interface RowEstimate {
  rows: number;
  /** Whether counting the rows would read few pages. */
  isQuick: boolean;
}

/** Counts the rows that match. With a maximum, it stops at the maximum plus one. */
export async function countRows(
  em: EntityManager,
  from: string,
  where: SqlFragment,
  max: number | null,
): Promise<number> {
  const [row] = await em
    .getConnection()
    .execute<{ count: string }[]>(
      `select count(*) as count from (select 1 from ${from} where ${where.sql} limit ?) counted`,
      [...where.parameters, max === null ? null : max + 1],
    );
  return Number(row?.count ?? 0);
}

/** Estimates the rows that match, and the cost of counting them. */
export async function estimateRows(
  em: EntityManager,
  from: string,
  where: SqlFragment,
): Promise<RowEstimate> {
  const [row] = await em
    .getConnection()
    .execute<{ 'QUERY PLAN': [{ Plan: Plan }] }[]>(
      `explain (format json) select 1 from ${from} where ${where.sql}`,
      [...where.parameters],
    );
  if (!row) throw new Error('PostgreSQL always returns a plan.');
  const plan = row['QUERY PLAN'][0].Plan;
  return { rows: plan['Plan Rows'], isQuick: plan['Total Cost'] <= MAX_COUNT_COST };
}

interface Plan {
  'Plan Rows': number;
  'Total Cost': number;
}

/** The planner's cost of 1,250 random pages. It expects a tenth of that for 10,000 entries. */
const MAX_COUNT_COST = 5000;
