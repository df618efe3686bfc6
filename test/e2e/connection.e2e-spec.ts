import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import { MikroORM } from '@mikro-orm/postgresql';
import { ormOptions } from '../../mikro-orm.config.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { Pool } from 'pg';
import {
  CONNECT_TIMEOUT_MS,
  discardReadOnlyConnections,
  POOL_WAIT_TIMEOUT_MS,
  PooledClient,
  QUERY_TIMEOUT_MS,
  releaseLostConnections,
  renewConnections,
  withConnection,
} from '../../src/database/connection.js';
import { isDatabaseUnavailable } from '../../src/database/postgres-errors.js';
import { inspectWith } from '../../src/database/inspect.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

/** Much longer than each timeout, so that a busy machine cannot reach half of it. */
const SLEEP_SECONDS = 30;

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

async function backendPid(): Promise<unknown> {
  const [row] = await execute('select pg_backend_pid() as pid');
  return row?.['pid'];
}

async function activeQueries(pid: unknown): Promise<unknown[]> {
  return database.sql(`select query from pg_stat_activity where pid = $1 and state <> 'idle'`, [
    pid,
  ]);
}

async function failureOf(work: Promise<unknown>): Promise<{ error: unknown; tookMs: number }> {
  const start = Date.now();
  try {
    await work;
  } catch (error) {
    return { error, tookMs: Date.now() - start };
  }
  throw new Error('The promise did not reject.');
}

/** Returns whether `check` becomes true within ten seconds. */
async function becomesTrue(check: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline;) {
    if (await check()) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}

it('cancels a query that exceeds the query timeout, also on the server', async () => {
  const pid = await backendPid();
  const { error, tookMs } = await failureOf(execute(`select pg_sleep(${SLEEP_SECONDS})`));
  expect(isDatabaseUnavailable(error)).toBe(true);
  expect(tookMs).toBeGreaterThanOrEqual(QUERY_TIMEOUT_MS - 10);
  expect(tookMs).toBeLessThan(SLEEP_SECONDS * 500);
  expect(await becomesTrue(async () => (await activeQueries(pid)).length === 0)).toBe(true);
});

it('does not reuse a connection whose query timed out', async () => {
  const pid = await backendPid();
  await failureOf(execute(`select pg_sleep(${SLEEP_SECONDS})`));
  // The pool has one connection. It has discarded the busy one, so this query need not wait.
  expect(await backendPid()).not.toBe(pid);
});

it('keeps a connection whose query ends in time', async () => {
  const pid = await backendPid();
  await execute(`select pg_sleep(${QUERY_TIMEOUT_MS / 2000})`);
  await new Promise((resolve) => setTimeout(resolve, QUERY_TIMEOUT_MS));
  expect(await backendPid()).toBe(pid);
});

it('rolls back the transaction of a query that timed out, and releases its locks', async () => {
  await database.sql('create table counter (value int); insert into counter values (1)');
  const { error, tookMs } = await failureOf(
    orm.em.transactional(async (em) => {
      await em.execute('update counter set value = 2');
      await em.execute(`select pg_sleep(${SLEEP_SECONDS})`);
    }),
  );
  expect(isDatabaseUnavailable(error)).toBe(true);
  expect(tookMs).toBeLessThan(SLEEP_SECONDS * 500);
  await database.sql(`set lock_timeout = '1s'`);
  expect(await database.sql('update counter set value = value + 10 returning value')).toEqual([
    { value: 11 },
  ]);
});

it('waits longer for a free place in the pool than for a new connection', async () => {
  const first = execute('select pg_sleep(1.5)');
  expect(await execute('select 1 as one')).toEqual([{ one: 1 }]);
  await first;

  const silentServer = createServer().listen(0, '127.0.0.1');
  await once(silentServer, 'listening');
  const { port } = silentServer.address() as AddressInfo;
  const unreachable = new Pool({
    connectionString: `postgres://u:p@127.0.0.1:${port}/x`,
    connectionTimeoutMillis: POOL_WAIT_TIMEOUT_MS,
    Client: PooledClient,
  });
  const { error, tookMs } = await failureOf(unreachable.connect());
  expect(isDatabaseUnavailable(error)).toBe(true);
  expect(tookMs).toBeGreaterThanOrEqual(CONNECT_TIMEOUT_MS - 10);
  // This is the message of the client. The pool would have another message.
  expect(String(error)).toContain('timeout expired');
  await unreachable.end();
  silentServer.close();
});

it('replaces a pooled connection that breaks within a transaction', async () => {
  const broken = orm.em.transactional(async (em) => {
    const [row] = await em.execute<{ pid: number }[]>('select pg_backend_pid() as pid');
    await database.sql('select pg_terminate_backend($1)', [row?.pid]);
    await em.execute('select 1');
  });
  expect(isDatabaseUnavailable((await failureOf(broken)).error)).toBe(true);
  expect(await execute('select 1 as one')).toEqual([{ one: 1 }]);
});

it('survives a backend that is terminated between two queries of a transaction', async () => {
  const broken = orm.em.transactional(async (em) => {
    const [row] = await em.execute<{ pid: number }[]>('select pg_backend_pid() as pid');
    await database.sql('select pg_terminate_backend($1)', [row?.pid]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    await em.execute('select 1');
  });
  expect(isDatabaseUnavailable((await failureOf(broken)).error)).toBe(true);
  expect(await execute('select 1 as one')).toEqual([{ one: 1 }]);
});

it('closes the pool while queries open new connections', async () => {
  const environment = parseEnvironment({ NODE_ENV: 'test', DATABASE_URL: database.url });
  const physical = await withConnection(database.url, (client) => inspectWith(client, environment));
  const other = await MikroORM.init(ormOptions({ url: database.url, poolMax: 5, physical }));
  const connection = other.em.getDriver().getConnection();
  const pool = await connection.getNativeClient();
  const queries = [1, 2, 3, 4, 5].map(() => connection.execute('select 1'));
  const outcomes = Promise.allSettled(queries);
  await setImmediate();
  expect(pool.totalCount).toBe(5);
  await other.close(true);
  expect(pool.totalCount).toBe(0);
  // Kysely does not release these connections. The test needs at least one of them.
  expect((await outcomes).map(({ status }) => status)).toContain('rejected');
});

it.each([2, 3])(
  'keeps all 3 places of the pool when it renews connections beside %i slow queries',
  async (queries) => {
    const pool = new Pool({
      connectionString: database.directUrl,
      max: 3,
      connectionTimeoutMillis: 300,
      Client: PooledClient,
    });
    releaseLostConnections(pool);
    discardReadOnlyConnections(pool);
    const takeAll = async () => {
      const clients = await Promise.all([1, 2, 3].map(() => pool.connect()));
      const pids = clients.map((client) => Reflect.get(client, 'processID') as number);
      for (const client of clients) client.release();
      return pids;
    };
    try {
      const old = await takeAll();
      const slow = Array.from({ length: queries }, () => pool.query('select pg_sleep(0.6)'));
      await renewConnections(pool);
      await Promise.all(slow);
      expect((await takeAll()).filter((pid) => old.includes(pid))).toEqual([]);
    } finally {
      // It would wait forever for a lost place.
      void pool.end();
    }
  },
);
