import { setTimeout as sleep } from 'node:timers/promises';
import { MikroORM } from '@mikro-orm/postgresql';
import type { Client } from 'pg';
import { ormOptions } from '../../mikro-orm.config.js';
import { runProgram } from './run-program.js';
import { type Environment, readEnvironment } from '../config/environment.js';
import { withConnection } from '../database/connection.js';
import { createTriggers, type TriggerState, triggerState } from '../database/change-triggers.js';
import { inspectWith, requireUsable } from '../database/inspect.js';
import { LOCKS } from '../database/advisory-locks.js';
import { extensions } from '../extensions.js';
import { grantToRuntimeRole } from '../database/runtime-role.js';

/**
 * Applies pending migrations and returns their names. MikroORM's migrator has no lock, so replicas
 * that start together would run the same migration. A direct connection holds an advisory lock
 * meanwhile.
 */
export async function migrate(environment: Environment): Promise<string[]> {
  return withConnection(environment.directUrl, async (client) => {
    await takeLock(client);
    // Inspect under the lock: another replica may have just created the tables.
    const physical = await inspectWith(client, environment);
    requireUsable(physical);
    const orm = await MikroORM.init(
      ormOptions({
        url: environment.directUrl,
        poolMax: 2,
        physical,
        queryTimeoutMs: null,
      }),
    );
    const isFirstRun = !(await hasSchema(client));
    try {
      const applied = await orm.migrator.up();
      const repaired = await repairTriggers(client, environment);
      const granted = await grantRights(client, environment);
      return [...applied.map(({ name }) => name), ...repaired, ...granted];
    } catch (error) {
      // This error matters more than an error of the clean-up.
      if (isFirstRun) await removeEmptyRecord(client).catch(() => undefined);
      throw error;
    } finally {
      await orm.close(true);
    }
  });
}

async function hasSchema(client: Client): Promise<boolean> {
  const { rowCount } = await client.query(`select from pg_namespace where nspname = 'gatehouse'`);
  return rowCount !== 0;
}

/** Removes the table of applied migrations if the first migration failed. */
async function removeEmptyRecord(client: Client): Promise<void> {
  const { rowCount } = await client.query('select from gatehouse.migration limit 1');
  if (rowCount !== 0) return;
  await client.query('drop table gatehouse.migration');
  // Fails if the schema contains anything else, and then leaves it.
  await client.query('drop schema gatehouse');
}

/**
 * A table that was dropped and created again, for example by Better-Auth, has no triggers. The
 * `npm run migrate` of an earlier release creates triggers of its own, which are obsolete here.
 */
async function repairTriggers(client: Client, environment: Environment): Promise<string[]> {
  const physical = await inspectWith(client, environment);
  const { rows } = await client.query<TriggerState>(triggerState(physical));
  if (rows[0]?.missing === 0 && rows[0].obsolete === 0) return [];
  await client.query('begin');
  await client.query(`set local lock_timeout = '5s'`);
  for (const statement of createTriggers(physical)) await client.query(statement);
  await client.query('commit');
  return ['the triggers of the change feed, which were missing or obsolete'];
}

/** Runs every time, because a table that was dropped and created again has no grants. */
async function grantRights(client: Client, environment: Environment): Promise<string[]> {
  const { DATABASE_RUNTIME_ROLE: role } = environment;
  if (role === undefined) return [];
  const physical = await inspectWith(client, environment);
  const { entities, schema } = extensions;
  // The first migration of the extensions may not have created the schema yet.
  const hasOwnSchema = entities.length > 0 && physical.schemas.includes(schema);
  await grantToRuntimeRole(client, role, physical, hasOwnSchema ? schema : undefined);
  return [`the grants of role "${role}"`];
}

/**
 * Polls for the lock instead of waiting inside PostgreSQL. A waiting statement holds a snapshot,
 * and `CREATE INDEX CONCURRENTLY` in the replica that has the lock would wait for that snapshot.
 */
async function takeLock(client: Client): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ taken: boolean }>(
      'select pg_try_advisory_lock($1) as taken',
      [LOCKS.migration],
    );
    if (rows[0]?.taken) return;
    await sleep(200);
  }
}

// Undefined before Node 24.2. `runProgram` rejects such a version.
if (import.meta.main ?? true) {
  await runProgram(async () => {
    const applied = await migrate(readEnvironment());
    for (const name of applied) process.stdout.write(`applied ${name}\n`);
    if (applied.length === 0) process.stdout.write('nothing to apply\n');
  });
}
