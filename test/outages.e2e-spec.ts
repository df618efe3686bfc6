import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { EntityManager } from '@mikro-orm/postgresql';
import { Public } from '../src/auth/decorators.js';
import { startApp } from './app.js';
import { createDatabase, type TestDatabase } from './database.js';

/** The promise is 2.5 s. The rest is for a machine that is busy with something else. */
const PROMISED_MS = 4000;
const TIMEOUT_MS = 60_000;

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
        // Nobody waited for that fault any more, but somebody has to mend it.
        const faults = gatehouse.lines.filter(
          ({ level }) => level === 'error' || level === 'fatal',
        );
        expect(faults).toEqual([
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
