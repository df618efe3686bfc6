import { type Client, escapeIdentifier } from 'pg';
import type { PhysicalSchema } from '../database/physical-schema.js';

/** Counts or deletes one kind of old rows. */
export interface Deletion {
  count(): Promise<number>;
  /** Deletes one batch at a time, and yields its number of rows. */
  batches(): AsyncIterable<number>;
}

/** If a poll of the change feed finds more than 1,000 rows, the replica empties its cache. */
const BATCH_SIZE = 1000;

/**
 * Sessions that expired before a time. Better-Auth's table has no index on that column, so a batch
 * is a range of ids, whether their sessions are expired or not. The run reads the table once.
 */
export function deleteSessions(
  client: Client,
  { schema, tables: { session } }: PhysicalSchema,
  before: Date,
): Deletion | undefined {
  if (!session) return undefined;
  const [id, expiresAt] = [session.columns['id'], session.columns['expiresAt']];
  if (!id || !expiresAt) return undefined;
  const table = `${escapeIdentifier(schema)}.${escapeIdentifier(session.name)}`;
  const key = escapeIdentifier(id.name);
  // Columns without a time zone hold UTC.
  const cutoff = expiresAt.type.endsWith('with time zone')
    ? '$1::timestamptz'
    : `$1::timestamptz at time zone 'UTC'`;
  const isExpired = `${escapeIdentifier(expiresAt.name)} < ${cutoff}`;
  const sql = `
    with page as (
      select ${key} as id from ${table}
      where $2::text is null or ${key} > $2::text::${id.type} order by ${key} limit ${BATCH_SIZE}
    ), gone as (
      delete from ${table} where ${key} in (select id from page) and ${isExpired} returning 1
    )
    select (select count(*)::int from gone) as deleted,
      (select id::text from page order by id desc limit 1) as last`;
  return {
    count: () =>
      countRows(client, `select count(*)::int as count from ${table} where ${isExpired}`, before),
    async *batches() {
      let last: string | null = null;
      do {
        const page = await deletePage(client, sql, before, last);
        last = page?.last ?? null;
        yield page?.deleted ?? 0;
      } while (last !== null);
    },
  };
}

interface Page {
  deleted: number;
  /** The last id of the page. Null if the page is empty, which is the end of the table. */
  last: string | null;
}

async function deletePage(
  client: Client,
  sql: string,
  before: Date,
  after: string | null,
): Promise<Page | undefined> {
  const { rows } = await client.query<Page>(sql, [before.toISOString(), after]);
  return rows[0];
}

/** Audit events that are older than a time, oldest first. */
export function deleteAuditEvents(client: Client, before: Date): Deletion {
  const old = 'from gatehouse.audit_event where at < $1::timestamptz';
  return {
    count: () => countRows(client, `select count(*)::int as count ${old}`, before),
    async *batches() {
      for (;;) {
        await client.query('begin');
        // The triggers accept a deletion only with this setting, and only of older events.
        await client.query(`select set_config('gatehouse.audit_retention', $1, true)`, [
          before.toISOString(),
        ]);
        const { rowCount } = await client.query(
          `delete from gatehouse.audit_event where id in
             (select id ${old} order by at, id limit ${BATCH_SIZE})`,
          [before.toISOString()],
        );
        await client.query('commit');
        if (!rowCount) return;
        yield rowCount;
      }
    },
  };
}

async function countRows(client: Client, sql: string, before: Date): Promise<number> {
  const { rows } = await client.query<{ count: number }>(sql, [before.toISOString()]);
  return rows[0]?.count ?? 0;
}
