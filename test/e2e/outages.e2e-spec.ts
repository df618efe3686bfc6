import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { EntityManager } from '@mikro-orm/postgresql';
import { Public } from '../../src/access/decorators.js';
import { Client } from 'pg';
import { startApp } from '../support/test-app.js';
import { signUp } from '../support/users.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { startStack } from '../support/stack.js';

const TIMEOUT_MS = 60_000;

@Public()
@Controller('slow')
class SlowController {
  @Get('value')
  async value() {
    await sleep(3000);
    return { too: 'late' };
  }

  @Get('error')
  async error() {
    await sleep(3000);
    throw new Error('too late');
  }

  @Get('broken')
  broken() {
    throw new Error('broken');
  }

  @Get('collision')
  collision() {
    throw Object.assign(new Error('canceling statement due to lock timeout'), { code: '55P03' });
  }
}

@Module({ controllers: [SlowController] })
class SlowModule {}

describe('late responses', () => {
  let database: TestDatabase;
  beforeAll(async () => (database = await createDatabase()));
  afterAll(() => database.drop());

  it(
    'responds with 503 in time while the only connection is busy, and with 200 afterwards',
    async () => {
      const gatehouse = await startApp({
        DATABASE_URL: database.url,
        BETTER_AUTH_URL: 'http://127.0.0.1:9',
        DATABASE_POOL_MAX: '1',
      });
      try {
        const { promise: released, resolve: release } = Promise.withResolvers<void>();
        const transaction = gatehouse.app
          .get(EntityManager)
          .fork()
          .transactional((em) => em.execute('select 1').then(() => released));
        await sleep(200);
        const responses = await Promise.all(
          Array.from({ length: 10 }, () => fetch(`${gatehouse.url}/health/db`)),
        );
        expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([503]));
        expect(responses[0]?.headers.get('retry-after')).toBe('2');
        release();
        await transaction;
        await gatehouse.http.get('/health/db').expect(200);
      } finally {
        await gatehouse.close();
      }
    },
    TIMEOUT_MS,
  );

  it(
    'responds with 503 to a route that exceeds the deadline, and only logs its late error',
    async () => {
      const gatehouse = await startApp(
        { DATABASE_URL: database.url, BETTER_AUTH_URL: 'http://127.0.0.1:9' },
        { modules: [SlowModule] },
      );
      try {
        const responses = await Promise.all(
          ['value', 'error'].map((path) => fetch(`${gatehouse.url}/api/v1/slow/${path}`)),
        );
        for (const response of responses) {
          expect([response.status, response.headers.get('retry-after')]).toEqual([503, '2']);
          expect(await response.json()).toMatchObject({ code: 'SERVICE_UNAVAILABLE' });
        }
        const collision = await fetch(`${gatehouse.url}/api/v1/slow/collision`);
        expect([collision.status, collision.headers.get('retry-after')]).toEqual([503, '2']);

        const client = new AbortController();
        const abortedRequest = fetch(`${gatehouse.url}/api/v1/slow/value`, {
          signal: client.signal,
        });
        await sleep(100);
        client.abort();
        await expect(abortedRequest).rejects.toThrow();
        await sleep(3200);
        const lines = gatehouse.lines.filter(({ route }) => String(route).includes('slow'));
        expect(lines.map(({ status }) => status)).toEqual([503, 503, 503, null]);
        expect(lines[3]).toMatchObject({ aborted: true });
        // The client has its response already, but the error must still appear in the log.
        const errors = gatehouse.lines.filter(
          ({ level }) => level === 'error' || level === 'fatal',
        );
        expect(errors).toEqual([
          expect.objectContaining({
            code: 'INTERNAL_ERROR',
            requestId: lines[1]?.['requestId'],
            err: expect.objectContaining({ message: 'too late' }),
          }),
        ]);
      } finally {
        await gatehouse.close();
      }
    },
    TIMEOUT_MS,
  );
});

it(
  'logs at most 600 lines a minute each for outages, errors and requests that failed with one code',
  async () => {
    const database = await createDatabase();
    const gatehouse = await startApp(
      {
        DATABASE_URL: database.url,
        BETTER_AUTH_URL: 'http://127.0.0.1:9',
        RATE_LIMIT_PER_MINUTE: '0',
      },
      { modules: [SlowModule] },
    );
    const statuses = new Set<number>();
    try {
      for (let i = 0; i < 650; i += 1) {
        for (const path of ['collision', 'broken']) {
          const { status } = await fetch(`${gatehouse.url}/api/v1/slow/${path}`);
          statuses.add(status);
        }
      }
      const linesOf = (key: string, value: string) =>
        gatehouse.lines.filter((line) => line[key] === value);
      const outages = linesOf('msg', 'unavailable');
      expect([...statuses]).toEqual([503, 500]);
      expect(outages).toHaveLength(600);
      expect(outages[0]).toMatchObject({ reason: 'A concurrent change prevented this change.' });
      expect(linesOf('level', 'error')).toHaveLength(600);
      // 600 lines for each of the two problem codes.
      expect(linesOf('msg', 'request')).toHaveLength(1200);
    } finally {
      await gatehouse.close();
      await database.drop();
    }
  },
  TIMEOUT_MS,
);

it(
  'makes no change after a 503, even when the request spent its time waiting for locks',
  async () => {
    const stack = await startStack();
    const { auth, database, gatehouse } = stack;
    const [sessions, row] = [1, 2].map(() => new Client({ connectionString: database.url }));
    try {
      const ada = await signUp(auth);
      await sessions?.connect();
      await row?.connect();
      // The lookup of the caller waits for the table lock. Then the change waits for the row lock.
      await sessions?.query('begin; lock table session in access exclusive mode');
      await row?.query('begin');
      await row?.query('select 1 from "user" where id = $1 for update', [ada.id]);
      const pendingResponse = gatehouse.call(`/api/v1/users/${ada.id}`, {
        method: 'PATCH',
        token: ada.token,
        body: { name: 'Too Late' },
      });
      await sleep(1700);
      await sessions?.query('rollback');
      await sleep(800);
      await row?.query('rollback');
      expect((await pendingResponse).status).toBe(503);
      await sleep(500);
      const [user] = await database.sql('select name from "user" where id = $1', [ada.id]);
      expect(user).toEqual({ name: 'Ada Lovelace' });
      expect(await database.sql('select 1 from gatehouse.audit_event')).toEqual([]);
    } finally {
      await sessions?.end();
      await row?.end();
      await stack.end();
    }
  },
  TIMEOUT_MS,
);
