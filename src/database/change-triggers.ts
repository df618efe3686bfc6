import type { PhysicalSchema, PhysicalTable } from './physical-schema.js';

/** Where PostgreSQL tells every replica whose user or session rows have changed. */
export const CHANNEL = 'gatehouse_change';
/** What is told of one user, before the id; and of more than can be told one by one. */
export const USER_CHANGED = 'user ';
export const EVERYTHING_CHANGED = 'everything';

/** A table whose changes are told, and the column that says of whom. */
interface WatchedTable {
  kind: 'user' | 'session';
  table: string;
  column: string;
}

const EVENTS = ['update', 'delete', 'truncate'] as const;

function watchedTables({ schema, tables: { user, session } }: PhysicalSchema): WatchedTable[] {
  return [
    ...(user ? [watch('user', schema, user, 'id')] : []),
    ...(session ? [watch('session', schema, session, 'userId')] : []),
  ];
}

function watch(
  kind: WatchedTable['kind'],
  schema: string,
  { name, columns }: PhysicalTable,
  property: string,
): WatchedTable {
  return { kind, table: `"${schema}"."${name}"`, column: `"${columns[property]?.name}"` };
}

/**
 * Functions and triggers, to be made anew at will. New rows are not told: who is not known is never
 * remembered, and a session more takes nothing from anybody. So signing in costs nothing more. One
 * statement is one look at what it touched, and of more than a thousand rows it says only that. An id too
 * long for a message is too long for a token as well.
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
      // Otherwise it does not fire for a writer with `session_replication_role = replica`.
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

/** What a database says about changes that the triggers do not announce. */
export interface TriggerState {
  /** Triggers that are absent, disabled, or not `ENABLE ALWAYS`. */
  missing: number;
  /** Tables that inherit from a watched one or the other way round, partitions included. */
  relatives: string | null;
  /** Watched tables that a subscription of logical replication writes to. */
  subscribed: string | null;
  /** Another text after each change of a trigger, for example after it was disabled for a while. */
  version: string | null;
}

/**
 * A statement trigger fires for the table that a statement names. It does not fire for changes made by
 * way of a parent or a child of that table, nor for those that logical replication applies.
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

/** Why the triggers do not announce every change, or undefined where they do. */
export function explainTriggers(state: TriggerState | undefined): string | undefined {
  if (state?.missing !== 0) return 'its triggers are missing: npm run migrate';
  if (state.relatives !== null) {
    return `its triggers do not fire for changes by way of another table: ${state.relatives}`;
  }
  if (state.subscribed !== null) {
    return `its triggers do not fire for logical replication into ${state.subscribed}`;
  }
  return undefined;
}
