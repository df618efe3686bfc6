import type { Client } from 'pg';
import type { Environment } from '../config/environment.js';
import { inspectDatabase, type PhysicalSchema } from './physical-schema.js';

/** The look at the database that the start, the migrations and the doctor share. */
export function inspectWith(client: Client, environment: Environment): Promise<PhysicalSchema> {
  return inspectDatabase(async (sql) => (await client.query<object>(sql)).rows, {
    schema: environment.DATABASE_SCHEMA,
    columns: environment.DATABASE_COLUMNS,
    sessionsNeeded: environment.SESSION_BINDING !== 'token-only',
  });
}
