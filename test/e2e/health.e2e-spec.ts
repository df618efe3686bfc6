import { migrationNames } from '../../mikro-orm.config.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { type KeySet, startKeySet, until } from '../support/app-process.js';

let database: TestDatabase;
let issuer: KeySet;
let gatehouse: RunningApp;

beforeEach(async () => {
  database = await createDatabase();
  issuer = await startKeySet();
});

afterEach(async () => {
  await gatehouse.close();
  issuer.close();
  await database.drop();
});

async function start(variables: Record<string, string> = {}) {
  gatehouse = await startApp({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: issuer.url,
    JWKS_REFRESH_SECONDS: '1',
    ...variables,
  });
}

const ready = async () => {
  const { status, body, headers } = await gatehouse.http.get('/health/ready');
  return { status, body, retryAfter: headers['retry-after'] };
};
const readyStatus = async () => (await ready()).status;
const readyState = async () => (await ready()).body.status as string;

/** Refuses new connections to this database and ends the others. The server keeps running. */
async function closeDatabase() {
  await allowConnections(false);
  await database.sql(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid()`,
  );
}

// ALTER DATABASE cannot do this for the database of its own connection.
const allowConnections = (allow: boolean) =>
  database.sql('update pg_database set datallowconn = $1 where datname = current_database()', [
    allow,
  ]);

const UP = { status: 'up', responseTime: expect.any(Number) };
const DOWN = (message: string) => ({
  status: 'down',
  responseTime: expect.any(Number),
  message,
});

describe('readiness probe', () => {
  it('reports the readiness of each part in the format of Terminus', async () => {
    await start();
    await until(readyState, 'ok');
    const { body } = await ready();
    const parts = {
      database: UP,
      migrations: UP,
      issuerKeys: { status: 'up', keys: 1, fetchedAt: expect.any(String) },
      changeFeed: { status: 'up', state: 'connected' },
    };
    expect(body).toEqual({ status: 'ok', info: parts, error: {}, details: parts });
  });

  it('returns 503 while the database refuses connections, and 200 at the first probe after that', async () => {
    await start();
    await until(readyStatus, 200);
    await closeDatabase();
    const { status, body, retryAfter } = await ready();
    expect([status, retryAfter]).toEqual([503, '2']);
    expect(body).toMatchObject({
      status: 'error',
      info: { issuerKeys: { status: 'up' } },
      error: { database: DOWN('the database does not answer') },
    });
    await allowConnections(true);
    // PgBouncer itself caches the refused login for a moment.
    const limitSeconds = process.env['TEST_PGBOUNCER'] ? 5 : 0;
    await until(readyStatus, 200, limitSeconds);
  });

  it('returns 503 while a migration is pending, and 200 once it is applied', async () => {
    const [name] = migrationNames();
    await database.sql('delete from gatehouse.migration where name = $1', [name]);
    await start();
    await until(async () => (await ready()).body.details.issuerKeys.status as string, 'up');
    const { status, body } = await ready();
    expect(status).toBe(503);
    expect(body.error).toEqual({ migrations: DOWN('1 pending: npm run migrate') });
    await database.sql('insert into gatehouse.migration (name) values ($1)', [name]);
    expect(await readyStatus()).toBe(200);
  });

  it('returns 503 without a key, and 200 soon after the issuer has returned', async () => {
    issuer.unavailable = true;
    await start();
    const { status, body } = await ready();
    expect(status).toBe(503);
    expect(body.error).toEqual({
      issuerKeys: { status: 'down', message: 'no usable key set; the issuer does not answer' },
    });
    issuer.unavailable = false;
    await until(readyStatus, 200);
  });

  it('returns 200 and degraded when the issuer is down and its keys are cached', async () => {
    await start();
    await until(readyState, 'ok');
    issuer.unavailable = true;
    await until(async () => (await ready()).body.details.issuerKeys.status, 'degraded');
    const { status, body } = await ready();
    expect([status, body.status]).toEqual([200, 'degraded']);
    expect(body.details.issuerKeys).toEqual({
      status: 'degraded',
      keys: 1,
      fetchedAt: expect.any(String),
      message: 'the issuer does not answer; its last keys serve on',
    });
    issuer.unavailable = false;
    await until(readyState, 'ok');
  });
});

it('returns 200 for liveness and summary, and 503 for the database, when no dependency works', async () => {
  issuer.unavailable = true;
  await start({ SESSION_BINDING: 'token-only' });
  await closeDatabase();
  await gatehouse.http.get('/health/live').expect(200, { status: 'ok' });
  const summary = await gatehouse.http.get('/health').expect(200);
  expect(summary.body).toEqual({
    name: 'gatehouse',
    version: expect.stringMatching(/^\d+\.\d+\.\d+/),
    uptimeSeconds: expect.any(Number),
    sessionBinding: 'token-only',
    warning: expect.stringContaining('token-only'),
    parts: {
      database: DOWN('the database does not answer'),
      migrations: DOWN('not known while the database does not answer'),
      issuerKeys: { status: 'down', message: 'no usable key set; the issuer does not answer' },
      changeFeed: {
        status: 'degraded',
        state: 'disconnected',
        message: 'every request queries the database',
      },
    },
  });
  const db = await gatehouse.http.get('/health/db').expect(503).expect('Retry-After', '2');
  const details = { database: DOWN('the database does not answer') };
  expect(db.body).toEqual({ status: 'error', info: {}, error: details, details });
});

it('checks only the database in the database probe', async () => {
  issuer.unavailable = true;
  await start();
  const details = { database: UP };
  const db = await gatehouse.http.get('/health/db').expect(200);
  expect(db.body).toEqual({ status: 'ok', info: details, error: {}, details });
});

it('shares one database check at a time among concurrent probes', async () => {
  await start();
  await until(readyStatus, 200);
  await expectSharedChecks('/health/db', 200);
});

it('shares one database check at a time while a migration is pending', async () => {
  const [name] = migrationNames();
  await database.sql('delete from gatehouse.migration where name = $1', [name]);
  await start();
  await expectSharedChecks('/health/ready', 503);
});

async function expectSharedChecks(path: string, status: number): Promise<void> {
  await Promise.all(Array.from({ length: 200 }, () => gatehouse.http.get(path).expect(status)));
  const rows = await database.sql<{ open: string }>(
    `select count(*) as open from pg_stat_activity
     where datname = current_database() and application_name = 'gatehouse'`,
  );
  // Unshared checks would open the whole pool.
  expect(Number(rows[0]?.open)).toBeLessThanOrEqual(2);
}
