import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { EntityManager } from '@mikro-orm/postgresql';
import { Client } from 'pg';
import { type BetterAuth, startBetterAuth } from '../dev/better-auth.ts';
import { type Postgres, startPostgres } from '../dev/postgres.ts';
import { Public } from '../src/auth/decorators.js';
import { startApp } from './app.js';
import { type Person, signUp } from './clients.js';
import { createDatabase, type TestDatabase } from './database.js';
import { runBuilt } from './program.js';
import { endServed, serve, type Served, until } from './served.js';

/** The promise is 2.5 s. The rest is for a machine that is busy with something else. */
const PROMISED_MS = 4000;
/** `OUTAGE_SECONDS=20` is how long the silence was that the figures come from. */
const OUTAGE_SECONDS = Number(process.env['OUTAGE_SECONDS'] ?? 6);
const TIMEOUT_MS = 60_000 + OUTAGE_SECONDS * 2000;

describe('a database of its own that goes away', () => {
  let folder: string;
  let postgres: Postgres;
  let auth: BetterAuth;
  let served: Served;
  let ada: Person;

  const startDatabase = () =>
    startPostgres({ dataDir: join(folder, 'postgres'), settings: { fsync: 'off' } });

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'gatehouse-outage-'));
    postgres = await startDatabase();
    await postgres.createDatabase('gatehouse');
    const url = postgres.url('gatehouse');
    await runBuilt('src/database/migrate.js', { DATABASE_URL: url });
    auth = await startBetterAuth({ databaseUrl: url });
    // Without a memory of who is who, so that each request asks the database.
    served = await serve({
      DATABASE_URL: url,
      BETTER_AUTH_URL: auth.origin,
      CHANGE_FEED: 'off',
    });
    ada = await signUp(auth);
    await until(async () => (await ask('/health/ready')).status, 200);
    await until(async () => (await ask('/api/v1/auth/me')).status, 200);
  }, TIMEOUT_MS);

  afterAll(async () => {
    endServed();
    await auth.stop();
    await postgres.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const PATHS = ['/health/db', '/health/ready', '/api/v1/auth/me'];

  const ask = async (path: string) => {
    const began = performance.now();
    const answer = await fetch(served.url + path, {
      headers: { authorization: `Bearer ${ada.token}` },
    });
    await answer.text();
    return {
      status: answer.status,
      retryAfter: answer.headers.get('retry-after'),
      ms: performance.now() - began,
    };
  };

  /** Asks for everything, again and again, as long as the outage lasts. */
  const askDuring = async (what: string, seconds: number) => {
    const answers: ReturnType<typeof ask>[] = [];
    const live: ReturnType<typeof ask>[] = [];
    for (let tick = 0; tick < seconds * 10; tick += 1) {
      for (const path of PATHS) answers.push(ask(path));
      live.push(ask('/health/live'), ask('/health'));
      await sleep(100);
    }
    const seen = await Promise.all(answers);
    const slowest = Math.max(...seen.map(({ ms }) => ms));
    process.stdout.write(
      `${what}: ${seen.length} answers in ${seconds} s, the slowest after ${Math.round(slowest)} ms\n`,
    );
    expect(new Set(seen.map(({ status }) => status))).toEqual(new Set([503]));
    expect(new Set(seen.map(({ retryAfter }) => retryAfter))).toEqual(new Set(['2']));
    expect(slowest).toBeLessThan(PROMISED_MS);
    expect(new Set((await Promise.all(live)).map(({ status }) => status))).toEqual(new Set([200]));
  };

  const expectBackAtOnce = async () => {
    const first = await Promise.all(PATHS.map(ask));
    expect(first.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(served.child.exitCode).toBeNull();
  };

  const acceptsConnections = async () => {
    const client = new Client({ connectionString: postgres.url('gatehouse') });
    client.on('error', () => undefined);
    const connected = await client.connect().then(
      () => true,
      () => false,
    );
    if (connected) await client.end();
    return connected;
  };

  it(
    'killed: every request is answered in time, and the first one after its return succeeds',
    async () => {
      for (const pid of processesOf(postgres)) process.kill(pid, 'SIGKILL');
      await postgres.ended;
      await askDuring('killed', 3);
      postgres = await startDatabase();
      await until(acceptsConnections, true);
      await expectBackAtOnce();
    },
    TIMEOUT_MS,
  );

  it(
    'stopped with SIGSTOP: every request is answered in time, and the first one after it succeeds',
    async () => {
      const pids = processesOf(postgres);
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      try {
        await askDuring('silent', OUTAGE_SECONDS);
      } finally {
        for (const pid of pids) process.kill(pid, 'SIGCONT');
      }
      await until(acceptsConnections, true);
      await expectBackAtOnce();
    },
    TIMEOUT_MS,
  );

  it(
    'restarted: the first request after it succeeds, on connections that were open before',
    async () => {
      await Promise.all(Array.from({ length: 20 }, () => ask('/api/v1/auth/me')));
      await postgres.stop();
      await askDuring('shut down', 1);
      postgres = await startDatabase();
      await until(acceptsConnections, true);
      await expectBackAtOnce();
    },
    TIMEOUT_MS,
  );

  it(
    'locked: a query that waits for a lock is given up on both sides',
    async () => {
      const locker = new Client({ connectionString: postgres.url('gatehouse') });
      await locker.connect();
      await locker.query('begin; lock table "user" in access exclusive mode');
      const seen = await Promise.all(Array.from({ length: 20 }, () => ask('/api/v1/auth/me')));
      const slowest = Math.max(...seen.map(({ ms }) => ms));
      process.stdout.write(
        `locked: ${seen.length} answers, the slowest after ${Math.round(slowest)} ms\n`,
      );
      expect(new Set(seen.map(({ status }) => status))).toEqual(new Set([503]));
      expect(slowest).toBeLessThan(PROMISED_MS);
      await until(async () => {
        const { rows } = await locker.query<{ waiting: string }>(
          `select count(*) as waiting from pg_stat_activity
           where application_name = 'gatehouse' and wait_event_type = 'Lock'`,
        );
        return rows[0]?.waiting;
      }, '0');
      await locker.query('rollback');
      await locker.end();
      await expectBackAtOnce();
    },
    TIMEOUT_MS,
  );

  it('is told in the log once when it goes and once when it is back, with the cause', () => {
    const told = served
      .lines()
      .filter(({ msg }) => String(msg).startsWith('the database '))
      .map(({ msg }) => msg);
    expect(told.slice(0, 4)).toEqual([
      'the database does not answer',
      'the database answers again',
      'the database does not answer',
      'the database answers again',
    ]);
    expect(served.output.stdout).toContain('connect ECONNREFUSED');
    expect(served.output.stderr).toBe('');
  });
});

@Public()
@Controller('slow')
class SlowController {
  @Get('value')
  async value() {
    await sleep(3000);
    return { too: 'late' };
  }

  @Get('fault')
  async fault() {
    await sleep(3000);
    throw new Error('too late');
  }

  @Get('collision')
  collision() {
    throw Object.assign(new Error('canceling statement due to lock timeout'), { code: '55P03' });
  }
}

@Module({ controllers: [SlowController] })
class SlowModule {}

describe('a service with one connection', () => {
  let database: TestDatabase;
  beforeAll(async () => (database = await createDatabase()));
  afterAll(() => database.drop());

  it(
    'that somebody holds: 503 in time, and 200 when it is free',
    async () => {
      const gatehouse = await startApp({
        DATABASE_URL: database.url,
        BETTER_AUTH_URL: 'http://127.0.0.1:9',
        DATABASE_POOL_MAX: '1',
      });
      try {
        const { promise: held, resolve: release } = Promise.withResolvers<void>();
        const holding = gatehouse.app
          .get(EntityManager)
          .fork()
          .transactional((em) => em.execute('select 1').then(() => held));
        await sleep(200);
        const began = performance.now();
        const answers = await Promise.all(
          Array.from({ length: 10 }, () => fetch(`${gatehouse.url}/health/db`)),
        );
        const ms = performance.now() - began;
        process.stdout.write(`pool used up: ${Math.round(ms)} ms\n`);
        expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([503]));
        expect(answers[0]?.headers.get('retry-after')).toBe('2');
        expect(ms).toBeLessThan(PROMISED_MS);
        release();
        await holding;
        await gatehouse.http.get('/health/db').expect(200);
      } finally {
        await gatehouse.close();
      }
    },
    TIMEOUT_MS,
  );

  it(
    'answers a route that takes too long with 503, and its late end does no harm',
    async () => {
      const gatehouse = await startApp(
        { DATABASE_URL: database.url, BETTER_AUTH_URL: 'http://127.0.0.1:9' },
        [SlowModule],
      );
      try {
        const began = performance.now();
        const answers = await Promise.all(
          ['value', 'fault'].map((path) => fetch(`${gatehouse.url}/api/v1/slow/${path}`)),
        );
        expect(performance.now() - began).toBeLessThan(PROMISED_MS);
        for (const answer of answers) {
          expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '2']);
          expect(await answer.json()).toMatchObject({ code: 'SERVICE_UNAVAILABLE' });
        }
        const collision = await fetch(`${gatehouse.url}/api/v1/slow/collision`);
        expect([collision.status, collision.headers.get('retry-after')]).toEqual([503, '2']);

        const leaving = new AbortController();
        const left = fetch(`${gatehouse.url}/api/v1/slow/value`, { signal: leaving.signal });
        await sleep(100);
        leaving.abort();
        await expect(left).rejects.toThrow();
        await sleep(3200);
        const lines = gatehouse.lines.filter(({ route }) => String(route).includes('slow'));
        expect(lines.map(({ status }) => status)).toEqual([503, 503, 503, null]);
        expect(lines[3]).toMatchObject({ aborted: true });
        expect(gatehouse.lines.filter(({ level }) => Number(level) >= 50)).toEqual([]);
      } finally {
        await gatehouse.close();
      }
    },
    TIMEOUT_MS,
  );
});

/** The server and everything that it has started. */
function processesOf({ pid }: Postgres): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return [pid, ...children.split(' ').filter(Boolean).map(Number)];
}
