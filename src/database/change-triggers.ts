import type { PhysicalSchema, PhysicalTable } from './physical-schema.js';

/** The NOTIFY channel on which the triggers announce changed user and session rows. */
export const CHANNEL = 'gatehouse_change';
/** The payload for one user is this prefix and the id. */
export const USER_CHANGED = 'user ';
/** The payload when too many rows changed to announce each user. */
export const EVERYTHING_CHANGED = 'everything';

/** A table whose changes are announced, and its column that holds the user id. */
interface WatchedTable {
  kind: 'user' | 'session';
  table: string;
  column: string;
}

const EVENTS = ['update', 'delete', 'truncate'] as const;

function watchedTables({ schema, tables: { user, session } }: PhysicalSchema): WatchedTable[] {
  return [
    ...(user ? [watchedTable('user', schema, user, 'id')] : []),
    ...(session ? [watchedTable('session', schema, session, 'userId')] : []),
  ];
}

function watchedTable(
  kind: WatchedTable['kind'],
  schema: string,
  { name, columns }: PhysicalTable,
  property: string,
): WatchedTable {
  return { kind, table: `"${schema}"."${name}"`, column: `"${columns[property]?.name}"` };
}

/**
 * The SQL that creates the functions and triggers, or replaces them.
 *
 * There is no trigger for inserts, so a sign-in costs nothing extra. An unknown user is never
 * cached, and a new session does not invalidate another one. A trigger runs once per statement. If
 * the statement changed more than a thousand rows, it sends one payload for all of them. An id that
 * is too long for a payload is also too long for a token.
 */
export function createTriggers(physical: PhysicalSchema): string[] {
  return watchedTables(physical).flatMap(({ kind, table, column }) => [
    `create or replace function gatehouse.announce_${kind}_change() returns trigger
      language plpgsql set search_path = pg_catalog, pg_temp as $$
      declare
        touched text[];
      begin
        if tg_op <> 'TRUNCATE' then
          touched := array(select ${column}::text from old_rows limit 1001);
          if cardinality(touched) <= 1000 then
            perform pg_notify('${CHANNEL}', '${USER_CHANGED}' || id)
            from (select distinct id from unnest(touched) as id where octet_length(id) < 2000) as ids;
            return null;
          end if;
        end if;
        perform pg_notify('${CHANNEL}', '${EVERYTHING_CHANGED}');
        return null;
      end $$`,
    ...EVENTS.flatMap((event) => [
      `drop trigger if exists gatehouse_announce_${event} on ${table}`,
      `create trigger gatehouse_announce_${event} after ${event} on ${table}
        ${event === 'truncate' ? '' : 'referencing old table as old_rows'}
        for each statement execute function gatehouse.announce_${kind}_change()`,
      // By default a trigger does not fire for a writer with `session_replication_role = replica`.
      `alter table ${table} enable always trigger gatehouse_announce_${event}`,
    ]),
  ]);
}

export function dropTriggers(physical: PhysicalSchema): string[] {
  return [
    ...watchedTables(physical).flatMap(({ table }) =>
      EVENTS.map((event) => `drop trigger if exists gatehouse_announce_${event} on ${table}`),
    ),
    'drop function if exists gatehouse.announce_user_change()',
    'drop function if exists gatehouse.announce_session_change()',
  ];
}

/** One row about changes that the triggers of a database would not announce. */
export interface TriggerState {
  /** Triggers that are absent, disabled, or not `ENABLE ALWAYS`. */
  missing: number;
  /** Parents, children and partitions of a watched table. */
  relatives: string | null;
  /** Watched tables that a subscription of logical replication writes to. */
  subscribed: string | null;
  /** Changes with each change of a trigger, for example after it was disabled for a while. */
  version: string | null;
}

/**
 * The query for `TriggerState`. A statement trigger fires only for the table that a statement
 * names. It does not fire for a change through a parent or a child of that table, nor for a change
 * that logical replication applies.
 */
export function triggerState(physical: PhysicalSchema): string {
  const tables = watchedTables(physical).map(({ table }) => table);
  const names = EVENTS.map((event) => `'gatehouse_announce_${event}'`);
  const relations = tables.map((table) => `to_regclass('${table.replaceAll("'", "''")}')`);
  const among = `in (${relations.join(', ')})`;
  return `select ${tables.length * EVENTS.length} - count(*) filter (where tgenabled = 'A')::int as missing,
      string_agg(oid || ':' || xmin, ' ' order by oid) as version,
      (select string_agg(inhrelid::regclass || ' inherits from ' || inhparent::regclass, ', ')
        from pg_inherits where inhparent ${among} or inhrelid ${among}) as relatives,
      (select string_agg(srrelid::regclass::text, ', ') from pg_subscription_rel
        where srrelid ${among}) as subscribed
    from pg_trigger where tgrelid ${among} and tgname in (${names.join(', ')})`;
}

/** Why the triggers do not announce every change, or undefined if they do. */
export function explainTriggers(state: TriggerState | undefined): string | undefined {
  if (state?.missing !== 0) return 'its triggers are missing: npm run migrate';
  if (state.relatives !== null) {
    return `its triggers do not fire for changes through another table: ${state.relatives}`;
  }
  if (state.subscribed !== null) {
    return `its triggers do not fire for logical replication into ${state.subscribed}`;
  }
  return undefined;
}
