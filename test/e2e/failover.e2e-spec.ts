import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { jest } from '@jest/globals';
import { Client } from 'pg';
import { startPostgres, type Postgres } from '../../tools/postgres.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { type RunningApp, startApp } from '../support/test-app.js';
import { type TestUser, signUp } from '../support/users.js';
import { runBuilt } from '../support/built-program.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

/** The bound: how long a change may stay unseen at most. */
const BOUND_SECONDS = 30;

jest.setTimeout(2 * BOUND_SECONDS * 1000);

let stack: Stack;
let folder: string;
let successor: Postgres;
let client: Client;
let proxy: TcpProxy;
let gatehouse: RunningApp;
let target: number;

const old = () => new URL(stack.database.directUrl);

/** The old server stays alive, with all connections to it, when the address moves to its successor. */
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gatehouse-failover-'));
  successor = await startPostgres({ dataDir: join(folder, 'data'), settings: { fsync: 'off' } });
  stack = await startStack();
  const { password, pathname } = old();
  const name = pathname.slice(1);
  await successor.createDatabase(name);
  client = new Client({ connectionString: successor.url(name) });
  await client.connect();
  await client.query(`alter role postgres password '${password}'`);
  const url = new URL(old());
  url.port = String(successor.port);
  await runBuilt('src/cli/migrate.js', { DATABASE_URL: url.href });
  proxy = await startTcpProxy(() => target);
}, 60_000);

afterAll(async () => {
  proxy?.close();
  await client?.end();
  await stack?.end();
  await successor?.stop();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(() => {
  target = Number(old().port);
});

afterEach(() => gatehouse?.close());

const through = (port: number) => {
  const url = old();
  url.hostname = '127.0.0.1';
  url.port = String(port);
  return url.href;
};

const ask = async ({ token }: TestUser) =>
  (await gatehouse.call('/api/v1/auth/me', { token })).status;

const feed = async () =>
  (await gatehouse.http.get('/health')).body.parts.changeFeed.state as string;

async function start(variables: Record<string, string> = {}): Promise<TestUser> {
  gatehouse = await startApp({
    DATABASE_URL: through(proxy.port),
    DATABASE_DIRECT_URL: through(proxy.port),
    BETTER_AUTH_URL: stack.auth.origin,
    ...variables,
  });
  const ada = await signUp(stack.auth);
  for (const table of ['user', 'session']) {
    const rows = await stack.database.sql<{ row: object }>(
      `select to_jsonb(t) as row from "${table}" t where "${table === 'user' ? 'id' : 'userId'}" = $1`,
      [ada.id],
    );
    for (const { row } of rows) {
      await client.query(
        `insert into "${table}" select * from jsonb_populate_record(null::"${table}", $1)`,
        [JSON.stringify(row)],
      );
    }
  }
  return ada;
}

/** The address moves, and the ban is written where it leads. */
async function moveAndBan(ada: TestUser): Promise<void> {
  target = successor.port;
  await client.query('update "user" set banned = true where id = $1', [ada.id]);
}

describe('an address that moves to another server while the old one stays alive', () => {
  it('is noticed by the change feed', async () => {
    const ada = await start();
    await until(feed, 'listening');
    expect(await ask(ada)).toBe(200);
    await moveAndBan(ada);
    await until(() => ask(ada), 403, BOUND_SECONDS);
    expect(gatehouse.lines.map((line) => line['error'])).toContain(
      'DATABASE_DIRECT_URL does not receive the notifications that DATABASE_URL sends',
    );
    // The cache must not be filled again by connections to the old server.
    await until(feed, 'listening');
    for (let time = 0; time < 20; time += 1) {
      expect(await ask(ada)).toBe(403);
      await sleep(50);
    }
  });

  it('is noticed where DATABASE_DIRECT_URL still leads to the old one', async () => {
    const ada = await start({ DATABASE_DIRECT_URL: stack.database.directUrl });
    await until(feed, 'listening');
    expect(await ask(ada)).toBe(200);
    await moveAndBan(ada);
    await until(() => ask(ada), 403, BOUND_SECONDS);
    expect(await feed()).toBe('away');
  });

  it('is noticed with CHANGE_FEED=off, though the connections never rest', async () => {
    const ada = await start({ CHANGE_FEED: 'off' });
    expect(await ask(ada)).toBe(200);
    await moveAndBan(ada);
    await until(() => ask(ada), 403, BOUND_SECONDS);
  });
});

const readOnly = async (value: 'on' | 'off') => {
  const server = new Client({ connectionString: through(successor.port) });
  await server.connect();
  await server.query(`alter system set default_transaction_read_only = ${value}`);
  await server.query('select pg_reload_conf()');
  await server.end();
};

describe('a server that becomes read-only and stays alive', () => {
  beforeEach(() => {
    target = successor.port;
  });
  afterEach(() => readOnly('off'));

  it('is left by every connection as soon as it says so', async () => {
    const ada = await start({ CHANGE_FEED: 'off', DATABASE_POOL_MAX: '1' });
    expect(await ask(ada)).toBe(200);
    await readOnly('on');
    target = Number(old().port);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    // The first answers still come from there, until one brings the news.
    await until(() => ask(ada), 403, 2);
  });

  it('is no server for the change feed, and is still read', async () => {
    const ada = await start();
    await until(feed, 'listening');
    await readOnly('on');
    await until(feed, 'away');
    expect(gatehouse.lines.map((line) => line['error'])).toContain(
      'the database is read-only or a standby',
    );
    expect(await ask(ada)).toBe(200);
    await readOnly('off');
    await until(feed, 'listening');
  });
});
