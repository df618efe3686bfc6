import { setTimeout as sleep } from 'node:timers/promises';
import { MikroORM } from '@mikro-orm/postgresql';
import type { Client } from 'pg';
import { ormOptions } from '../../mikro-orm.config.js';
import { runProgram } from './run-program.js';
import { type Environment, readEnvironment } from '../config/environment.js';
import { withConnection } from '../database/connection.js';
import { createTriggers, type TriggerState, triggerState } from '../database/change-triggers.js';
import { inspectWith, requireUsable } from '../database/inspect.js';
import { grantToRuntimeRole } from '../database/runtime-role.js';

/**
 * Applies what is pending and returns its names. MikroORM's migrator has no lock of its own, so that
 * several replicas that start at once would each run the same migration; an advisory lock, held by a
 * direct connection for the whole run, lets one go first.
 */
export async function migrate(environment: Environment): Promise<string[]> {
  return withConnection(environment.directUrl, async (client) => {
    await takeLock(client);
    // Looked at under the lock: the replica before us may just have made the tables.
    const physical = await inspectWith(client, environment);
    requireUsable(physical);
    const orm = await MikroORM.init(
      ormOptions({
        url: environment.directUrl,
        poolMax: 2,
        physical,
        answerWithinMs: null,
      }),
    );
    const isFirstRun = !(await hasSchema(client));
    try {
      const applied = await orm.migrator.up();
      const repaired = await repairTriggers(client, environment);
      const granted = await grantRights(client, environment);
      return [...applied.map(({ name }) => name), ...repaired, ...granted];
    } catch (error) {
      // What this error says matters more than what the tidying up might say.
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

/** Where not one migration could be applied, the table that was to record them goes again. */
async function removeEmptyRecord(client: Client): Promise<void> {
  const { rowCount } = await client.query('select from gatehouse.migration limit 1');
  if (rowCount !== 0) return;
  await client.query('drop table gatehouse.migration');
  // Fails, and stays, where it holds anything else.
  await client.query('drop schema gatehouse');
}

/** A table that was made anew, by Better-Auth's own migration for one, has lost the triggers it had. */
async function repairTriggers(client: Client, environment: Environment): Promise<string[]> {
  const physical = await inspectWith(client, environment);
  const { rows } = await client.query<TriggerState>(triggerState(physical));
  if (rows[0]?.missing === 0) return [];
  await client.query('begin');
  await client.query(`set local lock_timeout = '5s'`);
  for (const statement of createTriggers(physical)) await client.query(statement);
  await client.query('commit');
  return ['the triggers of the change feed, which were missing'];
}

/** At each run, because a table that was made anew has lost its grants, too. */
async function grantRights(client: Client, environment: Environment): Promise<string[]> {
  const { DATABASE_RUNTIME_ROLE: role } = environment;
  if (role === undefined) return [];
  await grantToRuntimeRole(client, role, await inspectWith(client, environment));
  return [`the grants of role "${role}"`];
}

/** The number is arbitrary, and the same in every release. */
const LOCK = 7_426_283_451;

/**
 * Asked for again and again and not waited for inside PostgreSQL: a waiting statement holds a snapshot,
 * and `CREATE INDEX CONCURRENTLY` in the replica that has the lock would wait for that snapshot.
 */
async function takeLock(client: Client): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ taken: boolean }>(
      'select pg_try_advisory_lock($1) as taken',
      [LOCK],
    );
    if (rows[0]?.taken) return;
    await sleep(200);
  }
}

// Node before 24.2 does not know; `runProgram` tells it apart.
if (import.meta.main ?? true) {
  await runProgram(async () => {
    const applied = await migrate(readEnvironment());
    for (const name of applied) process.stdout.write(`applied ${name}\n`);
    if (applied.length === 0) process.stdout.write('nothing to apply\n');
  });
}
