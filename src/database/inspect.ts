import type { Client } from 'pg';
import type { Environment } from '../config/environment.js';
import { UnusableDatabaseError } from './connection.js';
import { inspectDatabase, isNew, type PhysicalSchema } from './physical-schema.js';

/** The look at the database that the start, the migrations and the doctor share. */
export function inspectWith(client: Client, environment: Environment): Promise<PhysicalSchema> {
  return inspectDatabase(async (sql) => (await client.query<object>(sql)).rows, {
    schema: environment.DATABASE_SCHEMA,
    columns: environment.DATABASE_COLUMNS,
    requireSessions: environment.SESSION_BINDING !== 'token-only',
  });
}

/** For migrations: they go where Better-Auth's tables are sound, or where there are none. */
export function requireUsable(physical: PhysicalSchema): void {
  if (physical.errors.length === 0 || isNew(physical)) return;
  throw new UnusableDatabaseError(physical.errors.join('\n'));
}
