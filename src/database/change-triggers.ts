import type { PhysicalSchema, PhysicalTable } from './physical-schema.js';

/** Where PostgreSQL tells every replica whose user or session rows have changed. */
export const CHANNEL = 'gatehouse_change';
/** What is told of one user, before the id; and of more than can be told one by one. */
export const USER_CHANGED = 'user ';
export const EVERYTHING_CHANGED = 'everything';

/** A table whose changes are told, and the column that says of whom. */
interface Watched {
  kind: 'user' | 'session';
  table: string;
  column: string;
}

const EVENTS = ['update', 'delete', 'truncate'] as const;

function watched({ schema, tables: { user, session } }: PhysicalSchema): Watched[] {
  return [
    ...(user ? [watch('user', schema, user, 'id')] : []),
    ...(session ? [watch('session', schema, session, 'userId')] : []),
  ];
}

function watch(
  kind: Watched['kind'],
  schema: string,
  { name, columns }: PhysicalTable,
  property: string,
): Watched {
  return { kind, table: `"${schema}"."${name}"`, column: `"${columns[property]?.name}"` };
}

/**
 * Functions and triggers, to be made anew at will. New rows are not told: who is not known is never
 * remembered, and a session more takes nothing from anybody. So signing in costs nothing more. One
 * statement is one look at what it touched, and of more than a thousand rows it says only that. An id too
 * long for a message is too long for a token as well.
 */
export function createTriggers(physical: PhysicalSchema): string[] {
  return watched(physical).flatMap(({ kind, table, column }) => [
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
    ]),
  ]);
}

export function dropTriggers(physical: PhysicalSchema): string[] {
  return [
    ...watched(physical).flatMap(({ table }) =>
      EVENTS.map((event) => `drop trigger if exists gatehouse_announce_${event} on ${table}`),
    ),
    'drop function if exists gatehouse.announce_user_change()',
    'drop function if exists gatehouse.announce_session_change()',
  ];
}

/** Answers with one row, `{ missing }`: how many of the triggers are not there, or switched off. */
export function missingTriggers(physical: PhysicalSchema): string {
  const tables = watched(physical).map(({ table }) => table);
  const names = EVENTS.map((event) => `'gatehouse_announce_${event}'`);
  const relations = tables.map((table) => `to_regclass('${table.replaceAll("'", "''")}')`);
  return `select ${tables.length * EVENTS.length} - count(*)::int as missing from pg_trigger
    where tgrelid in (${relations.join(', ')}) and tgname in (${names.join(', ')})
      and tgenabled in ('O', 'A')`;
}
