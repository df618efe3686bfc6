import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { MikroORM } from '@mikro-orm/postgresql';
import { ormOptions } from '../../mikro-orm.config.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { Pool } from 'pg';
import {
  CONNECT_TIMEOUT_MS,
  POOL_WAIT_TIMEOUT_MS,
  PooledClient,
  QUERY_TIMEOUT_MS,
  withConnection,
} from '../../src/database/connection.js';
import { isDatabaseUnavailable } from '../../src/database/postgres-errors.js';
import { inspectWith } from '../../src/database/inspect.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

let database: TestDatabase;
let orm: MikroORM;

beforeAll(async () => {
  database = await createDatabase();
  const environment = parseEnvironment({ NODE_ENV: 'test', DATABASE_URL: database.url });
  const physical = await withConnection(database.url, (client) => inspectWith(client, environment));
  orm = await MikroORM.init(ormOptions({ url: database.url, poolMax: 1, physical }));
});

afterAll(async () => {
  await orm.close(true);
  await database.drop();
});

const execute = (sql: string) => orm.em.getConnection().execute<Record<string, unknown>[]>(sql);

async function backend(): Promise<unknown> {
  const [row] = await execute('select pg_backend_pid() as pid');
  return row?.['pid'];
}

async function busy(pid: unknown): Promise<unknown[]> {
  return database.sql(`select query from pg_stat_activity where pid = $1 and state <> 'idle'`, [
    pid,
  ]);
}

async function failure(work: Promise<unknown>): Promise<{ error: unknown; took: number }> {
  const start = Date.now();
  try {
    await work;
  } catch (error) {
    return { error, took: Date.now() - start };
  }
  throw new Error('It did not fail.');
}

/** Whether it becomes true within a second. */
async function soon(check: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + 1000; Date.now() < deadline;) {
    if (await check()) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}

it('gives up on a query that is not answered in time, and the server does, too', async () => {
  const pid = await backend();
  const { error, took } = await failure(execute('select pg_sleep(30)'));
  expect(isDatabaseUnavailable(error)).toBe(true);
  expect(took).toBeGreaterThanOrEqual(QUERY_TIMEOUT_MS - 10);
  expect(took).toBeLessThan(QUERY_TIMEOUT_MS + 150);
  expect(await soon(async () => (await busy(pid)).length === 0)).toBe(true);
});

it('does not hand the connection to the next query', async () => {
  const pid = await backend();
  await failure(execute('select pg_sleep(30)'));
  const start = Date.now();
  // The pool has one place: the busy connection has left it.
  expect(await backend()).not.toBe(pid);
  expect(Date.now() - start).toBeLessThan(500);
});

it('leaves a connection alone that answers in time', async () => {
  const pid = await backend();
  await execute(`select pg_sleep(${QUERY_TIMEOUT_MS / 1000 - 0.3})`);
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(await backend()).toBe(pid);
});

it('undoes the transaction that the query was in, and lets its locks go', async () => {
  await database.sql('create table counter (value int); insert into counter values (1)');
  const { error, took } = await failure(
    orm.em.transactional(async (em) => {
      await em.execute('update counter set value = 2');
      await em.execute('select pg_sleep(30)');
    }),
  );
  expect(isDatabaseUnavailable(error)).toBe(true);
  expect(took).toBeLessThan(QUERY_TIMEOUT_MS + 200);
  await database.sql(`set lock_timeout = '1s'`);
  expect(await database.sql('update counter set value = value + 10 returning value')).toEqual([
    { value: 11 },
  ]);
});

it('waits longer for its turn than for a connection', async () => {
  const first = execute('select pg_sleep(1.5)');
  expect(await execute('select 1 as one')).toEqual([{ one: 1 }]);
  await first;

  const silent = createServer().listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  const stranded = new Pool({
    connectionString: `postgres://u:p@127.0.0.1:${port}/x`,
    connectionTimeoutMillis: POOL_WAIT_TIMEOUT_MS,
    Client: PooledClient,
  });
  const { error, took } = await failure(stranded.connect());
  expect(isDatabaseUnavailable(error)).toBe(true);
  expect(took).toBeGreaterThanOrEqual(CONNECT_TIMEOUT_MS - 10);
  expect(took).toBeLessThan(POOL_WAIT_TIMEOUT_MS - 200);
  await stranded.end();
  silent.close();
});

it('loses no place in the pool to a connection that breaks within a transaction', async () => {
  const broken = orm.em.transactional(async (em) => {
    const [row] = await em.execute<{ pid: number }[]>('select pg_backend_pid() as pid');
    await database.sql('select pg_terminate_backend($1)', [row?.pid]);
    await em.execute('select 1');
  });
  expect(isDatabaseUnavailable((await failure(broken)).error)).toBe(true);
  expect(await execute('select 1 as one')).toEqual([{ one: 1 }]);
});
