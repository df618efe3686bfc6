import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { jest } from '@jest/globals';
import { AuditRepository } from '../../src/audit/audit.repository.js';
import { type TestUser, signUp } from '../support/users.js';
import { killProcesses, startProcess, until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;

/** Each event has 2 KB. Together they exceed the socket buffers of a client that does not read. */
const EVENTS = 20_000;
const BATCHES = EVENTS / 500;

beforeAll(async () => {
  stack = await startStack();
  admin = await signUp(stack.authWithSid);
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
  await stack.database.sql(`
    insert into gatehouse.audit_event (id, at, action, actor_id, target_user_id, reason, request_id)
    select ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '2024-06-11', 'user.banned',
      'a', 'b', repeat('spam ', 400), 'r'
    from generate_series(1, ${EVENTS}) n`);
  // Without statistics PostgreSQL would scan the whole table for each batch until autovacuum runs.
  await stack.database.sql('analyze gatehouse.audit_event');
});
afterAll(async () => {
  killProcesses();
  await stack.end();
});

/** Returns a successful response whose body is still unread. */
async function startExport(query = '', url = stack.gatehouse.url): Promise<IncomingMessage> {
  const response = await requestExport(query, url);
  expect(response.statusCode).toBe(200);
  return response;
}

async function requestExport(
  query = '',
  url = stack.gatehouse.url,
  actor = admin,
): Promise<IncomingMessage> {
  const headers = { authorization: `Bearer ${actor.token}`, accept: 'application/x-ndjson' };
  const request = get(`${url}/api/v1/audit-events${query}`, { headers, agent: false });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

/** Returns the lines. `isComplete` is false if the response ended without its last chunk. */
async function readToEnd(
  response: IncomingMessage,
): Promise<{ lines: string[]; isComplete: boolean }> {
  let text = '';
  response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const failed = once(response, 'error').then(() => false);
  const isComplete = await Promise.race([once(response, 'end').then(() => true), failed]);
  return { lines: text.split('\n').slice(0, -1), isComplete };
}

const rename = (from: string, to: string) =>
  stack.database.sql(`alter table gatehouse.${from} rename to ${to}`);

const brokenExports = () =>
  stack.gatehouse.lines.filter(({ msg }) => msg === 'audit export aborted');

it('exports each event with the same fields as the list', async () => {
  await stack.database.sql(`
    insert into gatehouse.audit_event values
      ('01800000-0000-7000-8000-000000000001', '2022-04-05T06:07:08.009999Z', 'user.role_changed', 'c', 'imp', 'd',
       '{"role": null, "n": [1.50, true, {"a": "b"}]}', '{"role": "Ünï\\"\\\\\\u2028\\n"}', E'two\\nlines "and" \\\\ 💥', 'r-1', '::1', 'curl/8'),
      ('01800000-0000-7000-8000-000000000002', '2022-12-31T23:59:59Z', 'user.unbanned', 'c', null, 'd',
       null, null, null, 'r-2', null, null)`);
  const { body } = await stack.gatehouse.call('/api/v1/audit-events?actorId=c', {
    token: admin.token,
  });
  const { lines } = await readToEnd(await startExport('?actorId=c'));
  expect(lines.map((line) => JSON.parse(line))).toEqual(body.items);
  expect(body.items[1].at).toBe('2022-04-05T06:07:08.009Z');
});

it('exports the events after a cursor', async () => {
  const { body } = await stack.gatehouse.call('/api/v1/audit-events?actorId=a&limit=100', {
    token: admin.token,
  });
  const { lines } = await readToEnd(
    await startExport(`?actorId=a&cursor=${body.pagination.nextCursor}`),
  );
  expect(lines).toHaveLength(EVENTS - 100);
});

describe('clients of an export', () => {
  const readBatch = jest.spyOn(AuditRepository.prototype, 'findLinesBefore');
  beforeEach(() => readBatch.mockClear());
  afterAll(() => readBatch.mockRestore());

  /** Waits until no batch was read for a while. Returns the number of batches so far. */
  const batchesWhenIdle = async () => {
    for (let before = -1; before !== readBatch.mock.calls.length;) {
      before = readBatch.mock.calls.length;
      await sleep(300);
    }
    return readBatch.mock.calls.length;
  };

  it('sends the complete export to a client that reads longer than the response deadline', async () => {
    const response = await startExport('?actorId=a');
    await sleep(3000);
    expect(await batchesWhenIdle()).toBeLessThan(BATCHES / 2);
    const { lines, isComplete } = await readToEnd(response);
    expect([lines.length, isComplete]).toEqual([EVENTS, true]);
    expect(new Set(lines.map((line) => (JSON.parse(line) as { id: string }).id)).size).toBe(EVENTS);
  });

  it('stops reading batches when the client disconnects', async () => {
    const response = await startExport('?actorId=a');
    for await (const _ of response) break;
    response.destroy();
    const read = await batchesWhenIdle();
    expect(read).toBeGreaterThan(0);
    expect(read).toBeLessThan(BATCHES / 2);
    expect(stack.gatehouse.lines).toContainEqual(
      expect.objectContaining({ route: '/api/v1/audit-events', aborted: true }),
    );
    expect(brokenExports()).toEqual([]);
  });

  it('reads at most two batches of an export for a HEAD request', async () => {
    const headers = { authorization: `Bearer ${admin.token}`, accept: 'application/x-ndjson' };
    const url = `${stack.gatehouse.url}/api/v1/audit-events`;
    const answer = await fetch(url, { method: 'HEAD', headers });
    expect([answer.status, answer.headers.get('content-type')]).toEqual([
      200,
      'application/x-ndjson',
    ]);
    expect(await batchesWhenIdle()).toBeLessThanOrEqual(2);
  });

  it('ends an export without its last chunk when the database fails in the middle', async () => {
    const response = await startExport('?actorId=a');
    await batchesWhenIdle();
    await rename('audit_event', 'elsewhere');
    try {
      const { lines, isComplete } = await readToEnd(response);
      expect(isComplete).toBe(false);
      expect(lines.length).toBeLessThan(EVENTS);
      expect(brokenExports()).toHaveLength(1);
    } finally {
      await rename('elsewhere', 'audit_event');
    }
  });
});

describe('concurrent exports', () => {
  it('allows a user two concurrent exports, and another when one of them has ended', async () => {
    const first = await startExport('?actorId=a');
    const second = await startExport('?actorId=a');
    const third = await requestExport('?actorId=a');
    const { lines } = await readToEnd(third);
    expect([third.statusCode, third.headers['retry-after'], lines]).toEqual([429, '30', []]);
    first.destroy();
    await until(async () => {
      const next = await requestExport('?actorId=a');
      next.destroy();
      return next.statusCode;
    }, 200);
    await readToEnd(second);
    await readToEnd(await startExport('?actorId=a'));
  });

  it('counts the concurrent exports of each user separately', async () => {
    const other = await signUp(stack.authWithSid);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [other.id]);
    const own = [await startExport('?actorId=a'), await startExport('?actorId=a')];
    const theirs = await requestExport('?actorId=a', stack.gatehouse.url, other);
    expect(theirs.statusCode).toBe(200);
    for (const response of [...own, theirs]) response.destroy();
  });

  it('allows a user another export after two exports exceeded the response deadline', async () => {
    const readBatch = jest.spyOn(AuditRepository.prototype, 'findLinesBefore');
    readBatch.mockImplementation(async () => {
      await sleep(3000);
      return { text: '', next: null };
    });
    const late = await Promise.all([requestExport('?actorId=a'), requestExport('?actorId=a')]);
    expect(late.map(({ statusCode }) => statusCode)).toEqual([503, 503]);
    await sleep(1000);
    readBatch.mockRestore();
    (await startExport('?actorId=a')).destroy();
  });
});

it.each([
  ['is banned', `update "user" set banned = true where id = $1`],
  ['is no longer an admin', `update "user" set role = 'user' where id = $1`],
  ['is signed out', `delete from session where "userId" = $1`],
  ['is deleted', `delete from "user" where id = $1`],
])('ends an export before the next batch when its caller %s', async (_how, sql) => {
  const grace = await signUp(stack.authWithSid);
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [grace.id]);
  const response = await requestExport('?actorId=a', stack.gatehouse.url, grace);
  expect(response.statusCode).toBe(200);
  await stack.database.sql(sql, [grace.id]);
  const { lines, isComplete } = await readToEnd(response);
  expect(isComplete).toBe(false);
  expect(lines.length).toBeLessThan(EVENTS / 2);
});

it('ends an export after 30 s in which its client reads nothing', async () => {
  stack.gatehouse.lines.length = 0;
  const unread = await startExport('?actorId=a');
  const slow = await startExport('?actorId=a');
  const ended = until(
    () => stack.gatehouse.lines.filter(({ aborted }) => aborted === true).length,
    1,
    60,
  );
  let isSlowDone = false;
  const reading = ended.then(() => (isSlowDone = true));
  // Reads far less than the server could send. Much less would look like nothing to the server,
  // because the kernel reports free space only for larger pieces.
  while (!isSlowDone) {
    slow.read();
    await Promise.race([sleep(250), reading]);
  }
  expect((await readToEnd(unread)).isComplete).toBe(false);
  expect((await readToEnd(slow)).isComplete).toBe(true);
}, 90_000);

const start = () =>
  startProcess({
    DATABASE_URL: stack.database.url,
    BETTER_AUTH_URL: stack.auth.origin,
    SHUTDOWN_DELAY_MS: '0',
  });

describe('SIGTERM', () => {
  it('completes an export that a client still reads after SIGTERM', async () => {
    const app = await start();
    const response = await startExport('?actorId=a', app.url);
    app.child.kill('SIGTERM');
    await until(() => app.output.stdout.includes('"msg":"shutting down"'), true);
    const { lines, isComplete } = await readToEnd(response);
    expect([lines.length, isComplete]).toEqual([EVENTS, true]);
    expect((await app.end()).code).toBe(0);
  });

  it('ends an unread export without its last chunk after SIGTERM, and exits', async () => {
    const app = await start();
    const response = await startExport('?actorId=a', app.url);
    const { code, ms } = await app.end('SIGTERM');
    const { lines, isComplete } = await readToEnd(response);
    expect(isComplete).toBe(false);
    expect(lines.length).toBeLessThan(EVENTS);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(25_000);
    expect(app.output.stderr).toBe('');
    expect(app.lines()).toContainEqual(
      expect.objectContaining({
        msg: 'closing connections with requests still in flight',
        inFlight: 1,
      }),
    );
  });
});
