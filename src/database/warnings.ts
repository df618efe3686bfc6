import { escapeIdentifier, type Client } from 'pg';
import type { Environment } from '../config/environment.js';
import type { Warning } from '../config/warnings.js';
import type { PhysicalSchema } from './physical-schema.js';

/** Warnings about this database, for the log at the start and for the doctor. */
export async function databaseWarnings(
  client: Client,
  environment: Environment,
  physical: PhysicalSchema,
): Promise<Warning[]> {
  if (physical.errors.length > 0) return [];
  return [
    ...(await clockSkew(client)),
    ...(environment.SESSION_BINDING === 'token-only'
      ? []
      : await missingSessions(client, physical)),
  ];
}

const MAX_CLOCK_SKEW_SECONDS = 5;

async function clockSkew(client: Client): Promise<Warning[]> {
  const before = Date.now();
  const { rows } = await client.query<{ seconds: number }>(
    'select extract(epoch from clock_timestamp())::float8 as seconds',
  );
  const after = Date.now();
  // The server read its clock at some time between the two, so the result has that uncertainty.
  const skew = (rows[0]?.seconds ?? 0) - (before + after) / 2000;
  if (Math.abs(skew) - (after - before) / 2000 <= MAX_CLOCK_SKEW_SECONDS) return [];
  const direction = skew > 0 ? 'behind' : 'ahead of';
  const message = `The clock of this machine is ${Math.abs(skew).toFixed(0)} s ${direction} the clock of the database. Tokens, bans and sessions expire at the wrong time. Synchronise both clocks (NTP).`;
  return [{ event: 'database.clock-skew', message }];
}

const MIN_NEW_USERS = 5;
const MAX_NEW_USERS = 20;
/** Without an index on `createdAt`, the query reads every user. It must not delay the start. */
const MAX_QUERY_MS = 1000;

/**
 * Better-Auth creates a session at sign-up. If many new users have none, it probably keeps sessions
 * in its secondary storage. This is only a hint, because an admin can also create users.
 */
async function missingSessions(client: Client, physical: PhysicalSchema): Promise<Warning[]> {
  const { users, withSession } = await countNewUsers(client, physical);
  if (users < MIN_NEW_USERS || withSession > 0) return [];
  const message = `None of the ${users} newest users has a session in PostgreSQL. If Better-Auth keeps sessions in its secondaryStorage, Gatehouse refuses their tokens: see docs/better-auth.md.`;
  return [{ event: 'database.sessions-elsewhere', message }];
}

async function countNewUsers(client: Client, { schema, tables }: PhysicalSchema) {
  const [user, session] = [tables.user, tables.session];
  const column = (table: typeof user, name: string) =>
    escapeIdentifier(table?.columns[name]?.name ?? name);
  const qualifiedName = (table: typeof user, name: string) =>
    `${escapeIdentifier(schema)}.${escapeIdentifier(table?.name ?? name)}`;
  const createdAt = column(user, 'createdAt');
  // Columns without a time zone hold UTC.
  const hasZone = user?.columns['createdAt']?.type.endsWith('with time zone');
  const now = hasZone ? 'now()' : `(now() at time zone 'UTC')`;
  await client.query(`begin read only; set local statement_timeout = ${MAX_QUERY_MS}`);
  try {
    const { rows } = await client.query<{ users: number; withSession: number }>(`
      select count(*)::int as users, count(*) filter (where exists (
        select from ${qualifiedName(session, 'session')} s where s.${column(session, 'userId')} = newest.id
      ))::int as "withSession"
      from (
        select ${column(user, 'id')} as id from ${qualifiedName(user, 'user')}
        where ${createdAt} between ${now} - interval '1 day' and ${now} - interval '1 minute'
        order by ${createdAt} desc limit ${MAX_NEW_USERS}
      ) newest`);
    return rows[0] ?? { users: 0, withSession: 0 };
  } catch (error) {
    if ((error as { code?: unknown }).code !== CANCELED) throw error;
    return { users: 0, withSession: 0 };
  } finally {
    await client.query('rollback');
  }
}

const CANCELED = '57014';
