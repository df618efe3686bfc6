import type { Client } from 'pg';

/** Names with schemas and exact types, so that no function of another schema can match better. */
const TABLE_FILE = `pg_catalog.concat_ws(' ', pg_catalog.pg_postmaster_start_time(),
  pg_catalog.pg_relation_filepath('gatehouse.change'::pg_catalog.regclass))`;

/**
 * Identifies what the table contains: the start of the server, the file of the table, and a row
 * that a crash deletes together with all others. If one of them changed, changes may be lost. Null
 * if the row is missing.
 */
export const INCARNATION = `(select pg_catalog.concat_ws(' ', ${TABLE_FILE}, pg_catalog.min(user_id))
  from gatehouse.change where xid = '0'::pg_catalog.xid8 having pg_catalog.count(*) > 0)`;

/** The result of one poll. */
export interface Poll {
  incarnation: string | null;
  /** The snapshot of the query. */
  snapshot: string;
  /** The clock of the server, in seconds. */
  read_at: number;
  /** The users that changed since the previous snapshot. Null stands for every user. */
  users: (string | null)[];
}

/** More changed users than this count as every user. */
export const MAX_USERS = 1000;

/**
 * The table is unlogged, so a commit flushes no more data than without it. The default of `xid` is
 * the id of the whole transaction, even in a subtransaction.
 *
 * The function reads the rows that were invisible in the snapshot `since`: those of transactions
 * that were in progress, and those of later ones. So transactions can commit in any order, and a
 * long one does not make each poll read more. All statements of a stable function use the snapshot
 * of its caller. PostgreSQL keeps their plans. Otherwise, planning would take most of the
 * time of a poll. Because of the limits, it uses the index even without statistics.
 */
export const CREATE_TABLE = [
  `create unlogged table if not exists gatehouse.change (
    xid xid8 not null default pg_current_xact_id(),
    user_id text
  )`,
  'create index if not exists change_xid_idx on gatehouse.change (xid)',
  `create or replace function gatehouse.read_changes(since pg_snapshot,
    out incarnation text, out snapshot text, out read_at float8, out users text[])
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
    begin
      select ${INCARNATION}, pg_current_snapshot()::text, extract(epoch from statement_timestamp()),
        array(
          (select user_id from pg_snapshot_xip(since) as in_progress (id), lateral (
            select user_id from gatehouse.change where xid = in_progress.id limit ${MAX_USERS + 1}
          ) as changes)
          union all
          (select user_id from gatehouse.change where xid >= pg_snapshot_xmax(since)
            order by xid limit ${MAX_USERS + 1})
        )
      into incarnation, snapshot, read_at, users;
    end $$`,
];

export const DROP_TABLE = [
  'drop function if exists gatehouse.read_changes(pg_snapshot)',
  'drop table if exists gatehouse.change',
];

/**
 * Without a snapshot, returns no users, but a first snapshot. The statement needs no state of its
 * session, so it works behind PgBouncer in transaction mode.
 */
export async function readChanges(client: Client, since: string | null): Promise<Poll> {
  const { rows } = await client.query<Poll>('select * from gatehouse.read_changes($1)', [since]);
  const [poll] = rows;
  if (!poll) throw new Error('PostgreSQL returned no row');
  return poll;
}

/** Returns a text that identifies the server and the file of the table. */
export async function readTableFile(client: Client): Promise<string | undefined> {
  const { rows } = await client.query<{ file: string }>(`select ${TABLE_FILE} as file`);
  return rows[0]?.file;
}

/**
 * Inserts the row that a crash deletes, if there is none. Transactions that were prepared before a
 * crash can still commit, but their rows are lost. So this inserts nothing while there are any.
 */
export async function markTable(client: Client): Promise<void> {
  await client.query(`insert into gatehouse.change (xid, user_id)
    select '0', gen_random_uuid()
    where not exists (select from gatehouse.change where xid = '0')
      and not exists (select from pg_prepared_xacts where database = current_database())`);
}

/** A replica whose previous poll is older than this may have missed rows that were deleted. */
export const MAX_GAP_SECONDS = 30;

/** A connection without a reply in this time counts as lost. */
export const REPLY_TIMEOUT_MS = 1000;
