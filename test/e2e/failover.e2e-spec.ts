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

/** A change may go unnoticed for at most this long. */
const MAX_DELAY_SECONDS = 30;

jest.setTimeout(2 * MAX_DELAY_SECONDS * 1000);

let stack: Stack;
let folder: string;
let successor: Postgres;
let client: Client;
let proxy: TcpProxy;
let gatehouse: RunningApp;
let target: number;

const oldUrl = () => new URL(stack.database.directUrl);

/** After the address moves to the successor, the old server keeps running with its connections. */
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gatehouse-failover-'));
  const settings = { fsync: 'off', max_prepared_transactions: '1' };
  successor = await startPostgres({ dataDir: join(folder, 'data'), settings });
  stack = await startStack();
  const { password, pathname } = oldUrl();
  const name = pathname.slice(1);
  await successor.createDatabase(name);
  client = new Client({ connectionString: successor.url(name) });
  await client.connect();
  await client.query(`alter role postgres password '${password}'`);
  const url = new URL(oldUrl());
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
  target = Number(oldUrl().port);
});

afterEach(() => gatehouse?.close());

const proxiedUrl = (port: number) => {
  const url = oldUrl();
  url.hostname = '127.0.0.1';
  url.port = String(port);
  return url.href;
};

const meStatus = async ({ token }: TestUser) =>
  (await gatehouse.call('/api/v1/auth/me', { token })).status;

const feedState = async () =>
  (await gatehouse.http.get('/health')).body.parts.changeFeed.state as string;

async function startWithUser(variables: Record<string, string> = {}): Promise<TestUser> {
  gatehouse = await startApp({
    DATABASE_URL: proxiedUrl(proxy.port),
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

/** Moves the address to the successor, and bans the user there. */
async function moveAndBan(ada: TestUser): Promise<void> {
  target = successor.port;
  await client.query('update "user" set banned = true where id = $1', [ada.id]);
}

describe('database address that moves while the old server stays alive', () => {
  it('detects a moved database address through the change feed', async () => {
    const ada = await startWithUser();
    await until(feedState, 'connected');
    expect(await meStatus(ada)).toBe(200);
    await moveAndBan(ada);
    await until(() => meStatus(ada), 403, MAX_DELAY_SECONDS);
    expect(gatehouse.lines.map((line) => line['error'])).toContain(
      'DATABASE_URL leads to another server',
    );
    // The cache must not be filled again by connections to the old server.
    await until(feedState, 'connected');
    for (let attempt = 0; attempt < 20; attempt += 1) {
      expect(await meStatus(ada)).toBe(403);
      await sleep(50);
    }
  });

  it('detects a moved address with CHANGE_FEED=off on connections that are never idle', async () => {
    const ada = await startWithUser({ CHANGE_FEED: 'off' });
    expect(await meStatus(ada)).toBe(200);
    await moveAndBan(ada);
    await until(() => meStatus(ada), 403, MAX_DELAY_SECONDS);
  });
});

const setReadOnly = async (value: 'on' | 'off') => {
  const server = new Client({ connectionString: proxiedUrl(successor.port) });
  await server.connect();
  await server.query(`alter system set default_transaction_read_only = ${value}`);
  await server.query('select pg_reload_conf()');
  await server.end();
};

it('starts no change feed after a crash while transactions from before it are prepared', async () => {
  target = successor.port;
  await client.query(
    `begin; update "user" set name = name; prepare transaction 'before_the_crash'`,
  );
  // A crash empties the table.
  await client.query('delete from gatehouse.change');
  try {
    const ada = await startWithUser();
    const errors = () => gatehouse.lines.map((line) => line['error']);
    await until(() => errors().includes('prepared transactions are pending'), true);
    expect([await feedState(), await meStatus(ada)]).toEqual(['disconnected', 200]);
  } finally {
    await client.query(`rollback prepared 'before_the_crash'`);
  }
  await until(feedState, 'connected');
});

describe('database server that becomes read-only', () => {
  beforeEach(() => {
    target = successor.port;
  });
  afterEach(() => setReadOnly('off'));

  it('leaves a read-only server with every connection as soon as it reports its state', async () => {
    const ada = await startWithUser({ CHANGE_FEED: 'off', DATABASE_POOL_MAX: '1' });
    expect(await meStatus(ada)).toBe(200);
    await setReadOnly('on');
    target = Number(oldUrl().port);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    // The first responses still come from that server, until one of them reports the state.
    await until(() => meStatus(ada), 403);
  });

  it('stops the change feed on a read-only server but still reads from it', async () => {
    const ada = await startWithUser();
    await until(feedState, 'connected');
    await setReadOnly('on');
    await until(feedState, 'disconnected');
    expect(gatehouse.lines.map((line) => line['error'])).toContain(
      'the database is read-only or a standby',
    );
    expect(await meStatus(ada)).toBe(200);
    await setReadOnly('off');
    await until(feedState, 'connected');
  });
});
