import { CREATE_TABLE, DROP_TABLE } from './change-table.js';
import { EXPECTED, type PhysicalSchema, type PhysicalTable } from './physical-schema.js';

/** A table whose changes the triggers record. */
interface WatchedTable {
  kind: 'user' | 'session';
  table: string;
  /** The column with the user id. */
  userId: string;
  /** The triggers, by the last part of their names. */
  triggers: Record<string, Trigger>;
}

interface Trigger {
  event: string;
  action: string;
}

function watchedTables({ schema, tables: { user, session } }: PhysicalSchema): WatchedTable[] {
  return [
    ...(user ? [watchedUsers(schema, user)] : []),
    ...(session ? [watchedSessions(schema, session)] : []),
  ];
}

/** Records every update, because a condition would cost more than the row that it avoids. */
function watchedUsers(schema: string, user: PhysicalTable): WatchedTable {
  return {
    kind: 'user',
    table: `"${schema}"."${user.name}"`,
    userId: quotedColumn(user, 'id'),
    triggers: {
      update: { event: 'update', action: `for each row ${RECORD_USER}` },
      delete: { event: 'delete', action: `for each row ${RECORD_USER}` },
      truncate: TRUNCATE,
    },
  };
}

/**
 * A refresh only sets `updatedAt` and a later `expiresAt`. The cached session stays valid, so it is
 * not recorded. PostgreSQL parses a condition in each statement, so there is only a short one. A
 * list of columns costs nothing, but `update of` ignores columns that a `before` trigger changes.
 */
function watchedSessions(schema: string, session: PhysicalTable): WatchedTable {
  const others = Object.keys(EXPECTED.session).filter(
    (property) => property !== 'updatedAt' && property !== 'expiresAt',
  );
  const end = quotedColumn(session, 'expiresAt');
  return {
    kind: 'session',
    table: `"${schema}"."${session.name}"`,
    userId: quotedColumn(session, 'userId'),
    triggers: {
      update: {
        event: `update of ${others.map((name) => quotedColumn(session, name)).join(', ')}`,
        action: `for each row ${RECORD_SESSION}`,
      },
      expiry: {
        event: 'update',
        action: `for each row when ((new.${end} >= old.${end}) is not true) ${RECORD_SESSION}`,
      },
      delete: { event: 'delete', action: `for each row ${RECORD_SESSION}` },
      truncate: TRUNCATE,
    },
  };
}

const RECORD_USER = 'execute function gatehouse.record_user_change()';
const RECORD_SESSION = 'execute function gatehouse.record_session_change()';
const TRUNCATE: Trigger = {
  event: 'truncate',
  action: 'for each statement execute function gatehouse.record_truncation()',
};

function quotedColumn({ columns }: PhysicalTable, property: string): string {
  return `"${columns[property]?.name}"`;
}

/**
 * The SQL that creates the table, the functions and the triggers, or replaces them.
 *
 * There is no trigger for inserts: an unknown user is never cached, and a new session does not
 * invalidate another one. The functions run with the rights of their owner, because the role of
 * Better-Auth has none on the schema `gatehouse`.
 */
export function createTriggers(physical: PhysicalSchema): string[] {
  return [
    ...CREATE_TABLE,
    ...dropNotifyingTriggers(physical),
    RECORD_ALL,
    // A trigger fires without this right, which other roles need to use the function elsewhere.
    'revoke execute on function gatehouse.record_truncation() from public',
    ...watchedTables(physical).flatMap((watched) => [
      recordingFunction(watched),
      `revoke execute on function gatehouse.record_${watched.kind}_change() from public`,
      ...Object.entries(watched.triggers).flatMap(([name, trigger]) =>
        createTrigger(watched.table, name, trigger),
      ),
    ]),
  ];
}

function createTrigger(table: string, name: string, { event, action }: Trigger): string[] {
  return [
    `drop trigger if exists gatehouse_record_${name} on ${table}`,
    `create trigger gatehouse_record_${name} after ${event} on ${table} ${action}`,
    // By default a trigger does not fire for a writer with `session_replication_role = replica`.
    `alter table ${table} enable always trigger gatehouse_record_${name}`,
  ];
}

/**
 * The function does little, because each sign-out runs it. To set `search_path` would add more than
 * a tenth to its time. It is not needed, because every name has its schema, and there is no
 * operator. So no other role can make it call another function.
 */
function recordingFunction({ kind, userId }: WatchedTable): string {
  return `create or replace function gatehouse.record_${kind}_change() returns trigger
    language plpgsql security definer as $$
    begin
      insert into gatehouse.change (user_id) values (old.${userId}::pg_catalog.text);
      return null;
    end $$`;
}

const RECORD_ALL = `create or replace function gatehouse.record_truncation() returns trigger
  language plpgsql security definer as $$
  begin
    insert into gatehouse.change (user_id) values (null);
    return null;
  end $$`;

export function dropTriggers(physical: PhysicalSchema): string[] {
  return [
    ...watchedTables(physical).flatMap(({ table, triggers }) =>
      Object.keys(triggers).map(
        (name) => `drop trigger if exists gatehouse_record_${name} on ${table}`,
      ),
    ),
    'drop function if exists gatehouse.record_user_change()',
    'drop function if exists gatehouse.record_session_change()',
    'drop function if exists gatehouse.record_truncation()',
    ...DROP_TABLE,
  ];
}

/** An earlier release had triggers of these names, which sent notifications. */
function dropNotifyingTriggers(physical: PhysicalSchema): string[] {
  return [
    ...watchedTables(physical).flatMap(({ table }) =>
      ['update', 'delete', 'truncate'].map(
        (event) => `drop trigger if exists gatehouse_announce_${event} on ${table}`,
      ),
    ),
    'drop function if exists gatehouse.announce_user_change()',
    'drop function if exists gatehouse.announce_session_change()',
  ];
}

/** Whether the triggers of a database record every change. */
export interface TriggerState {
  /** A standby is read-only as well. */
  isReadOnly: boolean;
  /** Triggers that are absent, disabled, or not `ENABLE ALWAYS`, and the table if it is absent. */
  missing: number;
  /** Triggers of an earlier release, which slow the writers down. */
  obsolete: number;
  /** Parents, children and partitions of a watched table. */
  relatives: string | null;
  /** Watched tables that a subscription of logical replication writes to. */
  subscribed: string | null;
  /** Changes with each change of a trigger, for example after it was disabled for a while. */
  version: string | null;
}

/**
 * The query for `TriggerState`. A trigger fires only for the rows of its own table. It does
 * not record changes of a child table or of a partition.
 */
export function triggerState(physical: PhysicalSchema): string {
  const watched = watchedTables(physical);
  const expected = watched.flatMap(({ triggers }) => Object.keys(triggers)).length;
  const relations = watched.map(({ table }) => `to_regclass('${table.replaceAll("'", "''")}')`);
  const among = `in (${relations.join(', ')})`;
  return `select current_setting('transaction_read_only')::boolean as "isReadOnly",
      ${expected + 1} - (${COUNT_TABLE})
        - count(*) filter (where starts_with(tgname, 'gatehouse_record_') and tgenabled = 'A')::int as missing,
      count(*) filter (where starts_with(tgname, 'gatehouse_announce_'))::int as obsolete,
      string_agg(oid || ':' || xmin, ' ' order by oid)
        filter (where starts_with(tgname, 'gatehouse_record_')) as version,
      (select string_agg(inhrelid::regclass || ' inherits from ' || inhparent::regclass, ', ')
        from pg_inherits where inhparent ${among} or inhrelid ${among}) as relatives,
      (select string_agg(srrelid::regclass::text, ', ') from pg_subscription_rel
        where srrelid ${among}) as subscribed
    from pg_trigger where tgrelid ${among} and not tgisinternal`;
}

/** Unlike `to_regclass`, this needs no rights on the schema. */
const COUNT_TABLE = `select count(*)::int from pg_class
  where relname = 'change'
    and relnamespace = (select oid from pg_namespace where nspname = 'gatehouse')`;

/** Returns why the triggers do not record every change, or undefined if they do. */
export function explainTriggers(state: TriggerState | undefined): string | undefined {
  if (state?.isReadOnly !== false) return 'the database is read-only or a standby';
  if (state.missing !== 0) return 'its triggers are missing: npm run migrate';
  if (state.relatives !== null) {
    return `its triggers do not fire for changes through another table: ${state.relatives}`;
  }
  if (state.subscribed !== null) {
    return `it does not support logical replication into ${state.subscribed}`;
  }
  return undefined;
}
