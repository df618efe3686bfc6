import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Controller,
  Get,
  HttpCode,
  type MessageEvent,
  Module,
  Post,
  Sse,
  StreamableFile,
} from '@nestjs/common';
import { map, type Observable, timer } from 'rxjs';
import { Public } from '../../src/access/decorators.js';
import { TransactionRunner } from '../../src/database/transaction-runner.js';
import { AnswerWithin, NoDeadline } from '../../src/http/deadline.decorators.js';
import { DatabaseModule } from '../../src/database/database.module.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

/** Longer than the default deadline. */
const SLOW_MS = 2500;

@Controller('slow')
@Public()
class SlowController {
  constructor(private readonly transactions: TransactionRunner) {}

  @Get('default')
  async byDefault() {
    await sleep(SLOW_MS);
    return { late: true };
  }

  @Get('within')
  @AnswerWithin(30_000)
  async within() {
    await sleep(SLOW_MS);
    return { late: true };
  }

  @Get('short')
  @AnswerWithin(100)
  async short() {
    await sleep(SLOW_MS);
    return { late: true };
  }

  @Post('change')
  @HttpCode(200)
  change() {
    return this.commitLate();
  }

  @Post('long-change')
  @HttpCode(200)
  @AnswerWithin(30_000)
  longChange() {
    return this.commitLate();
  }

  @Post('unlimited-change')
  @HttpCode(200)
  @NoDeadline()
  unlimitedChange() {
    return this.commitLate();
  }

  @Sse('events')
  @NoDeadline()
  events(): Observable<MessageEvent> {
    return timer(SLOW_MS).pipe(map(() => ({ data: { tick: 1 } })));
  }

  @Get('file')
  @NoDeadline()
  async file() {
    await sleep(SLOW_MS);
    return new StreamableFile(Readable.from([Buffer.from('a,b'), Buffer.from('\n1,2')]), {
      type: 'text/csv',
      disposition: 'attachment; filename="notes.csv"',
    });
  }

  private async commitLate() {
    await this.transactions.run(async (em) => {
      // Each query has a timeout of its own, which a busy machine must not reach.
      for (let query = 0; query < 5; query += 1) {
        await em.execute(`select pg_sleep(${SLOW_MS / 5000})`);
      }
    });
    return { committed: true };
  }
}

@Controller('private')
class PrivateController {
  @Sse('events')
  events(): Observable<MessageEvent> {
    return timer(0).pipe(map(() => ({ data: 'secret' })));
  }
}

@Module({ imports: [DatabaseModule], controllers: [SlowController, PrivateController] })
class SlowModule {}

let database: TestDatabase;
let gatehouse: RunningApp;

beforeAll(async () => {
  database = await createDatabase();
  gatehouse = await startApp(
    { DATABASE_URL: database.url, BETTER_AUTH_URL: 'http://127.0.0.1:9' },
    { modules: [SlowModule] },
  );
});

afterAll(async () => {
  await gatehouse.close();
  await database.drop();
});

const outcome = async (path: string, method = 'GET') => {
  const response = await fetch(`${gatehouse.url}/api/v1/slow/${path}`, { method });
  const body = (await response.json()) as { code?: string };
  return [response.status, body.code ?? body] as unknown;
};

it.each([
  ['without a decorator after 2.2 seconds', 'default', [503, 'SERVICE_UNAVAILABLE']],
  ['with @AnswerWithin() not before its time', 'within', [200, { late: true }]],
  ['with @AnswerWithin() after its time', 'short', [503, 'SERVICE_UNAVAILABLE']],
])('fails a request to a route %s', async (_what, path, expected) => {
  expect(await outcome(path)).toEqual(expected);
});

it.each([
  ['rolls back', 'without a decorator', 'change', [503, 'SERVICE_UNAVAILABLE']],
  ['commits', 'with @AnswerWithin()', 'long-change', [200, { committed: true }]],
  ['commits', 'with @NoDeadline()', 'unlimited-change', [200, { committed: true }]],
])('%s a slow transaction of a route %s', async (_what, _how, path, expected) => {
  expect(await outcome(path, 'POST')).toEqual(expected);
});

it('sends server-sent events, also after the default deadline', async () => {
  const response = await fetch(`${gatehouse.url}/api/v1/slow/events`);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
  expect(await response.text()).toContain('data: {"tick":1}\n\n');
});

it('requires a token for server-sent events', async () => {
  const response = await fetch(`${gatehouse.url}/api/v1/private/events`);
  expect(response.status).toBe(401);
  expect(await response.json()).toMatchObject({ code: 'AUTH_MISSING_TOKEN' });
});

it("sends Nest's StreamableFile with its headers and with those of every response", async () => {
  const response = await fetch(`${gatehouse.url}/api/v1/slow/file`);
  const header = (name: string) => response.headers.get(name);
  expect([response.status, header('content-type'), header('content-disposition')]).toEqual([
    200,
    'text/csv',
    'attachment; filename="notes.csv"',
  ]);
  expect([header('x-content-type-options'), header('cache-control')]).toEqual([
    'nosniff',
    'no-store',
  ]);
  expect(await response.text()).toBe('a,b\n1,2');
});
