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

/** Of two kilobytes each: several times what fits between a server and a client that does not read. */
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
  // PostgreSQL would get around to it, and go through all of them for each batch until then.
  await stack.database.sql('analyze gatehouse.audit_event');
});
afterAll(async () => {
  killProcesses();
  await stack.end();
});

/** The answer as it begins, of which nothing is read yet. */
async function begin(query = '', url = stack.gatehouse.url): Promise<IncomingMessage> {
  const response = await ask(query, url);
  expect(response.statusCode).toBe(200);
  return response;
}

async function ask(query = '', url = stack.gatehouse.url, by = admin): Promise<IncomingMessage> {
  const headers = { authorization: `Bearer ${by.token}`, accept: 'application/x-ndjson' };
  const request = get(`${url}/api/v1/audit-events${query}`, { headers, agent: false });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

/** What came, and whether that was all: an answer that is cut off ends without its last chunk. */
async function readToEnd(response: IncomingMessage): Promise<{ lines: string[]; whole: boolean }> {
  let text = '';
  response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const failed = once(response, 'error').then(() => false);
  const whole = await Promise.race([once(response, 'end').then(() => true), failed]);
  return { lines: text.split('\n').slice(0, -1), whole };
}

const rename = (from: string, to: string) =>
  stack.database.sql(`alter table gatehouse.${from} rename to ${to}`);

const breaks = () => stack.gatehouse.lines.filter(({ msg }) => msg === 'audit export aborted');

it('has of each event what the list has', async () => {
  await stack.database.sql(`
    insert into gatehouse.audit_event values
      ('01800000-0000-7000-8000-000000000001', '2022-04-05T06:07:08.009999Z', 'user.role_changed', 'c', 'imp', 'd',
       '{"role": null, "n": [1.50, true, {"a": "b"}]}', '{"role": "Ünï\\"\\\\\\u2028\\n"}', E'two\\nlines "and" \\\\ 💥', 'r-1', '::1', 'curl/8'),
      ('01800000-0000-7000-8000-000000000002', '2022-12-31T23:59:59Z', 'user.unbanned', 'c', null, 'd',
       null, null, null, 'r-2', null, null)`);
  const { body } = await stack.gatehouse.call('/api/v1/audit-events?actorId=c', {
    token: admin.token,
  });
  const { lines } = await readToEnd(await begin('?actorId=c'));
  expect(lines.map((line) => JSON.parse(line))).toEqual(body.items);
  expect(body.items[1].at).toBe('2022-04-05T06:07:08.009Z');
});

it('goes on from a cursor', async () => {
  const { body } = await stack.gatehouse.call('/api/v1/audit-events?actorId=a&limit=100', {
    token: admin.token,
  });
  const { lines } = await readToEnd(await begin(`?actorId=a&cursor=${body.pagination.nextCursor}`));
  expect(lines).toHaveLength(EVENTS - 100);
});

describe('a client', () => {
  const asked = jest.spyOn(AuditRepository.prototype, 'findLinesBefore');
  beforeEach(() => asked.mockClear());
  afterAll(() => asked.mockRestore());

  /** Resolves when nothing has been asked for a while. */
  const settled = async () => {
    for (let before = -1; before !== asked.mock.calls.length;) {
      before = asked.mock.calls.length;
      await sleep(300);
    }
    return asked.mock.calls.length;
  };

  it('that takes longer than an answer may take gets all of it', async () => {
    const response = await begin('?actorId=a');
    await sleep(3000);
    expect(await settled()).toBeLessThan(BATCHES / 2);
    const { lines, whole } = await readToEnd(response);
    expect([lines.length, whole]).toEqual([EVENTS, true]);
    expect(new Set(lines.map((line) => (JSON.parse(line) as { id: string }).id)).size).toBe(EVENTS);
  });

  it('that leaves in the middle is read nothing more for', async () => {
    const response = await begin('?actorId=a');
    for await (const _ of response) break;
    response.destroy();
    const read = await settled();
    expect(read).toBeGreaterThan(0);
    expect(read).toBeLessThan(BATCHES / 2);
    expect(stack.gatehouse.lines).toContainEqual(
      expect.objectContaining({ route: '/api/v1/audit-events', aborted: true }),
    );
    expect(breaks()).toEqual([]);
  });

  it('that asks for the headers alone is read one batch for', async () => {
    const headers = { authorization: `Bearer ${admin.token}`, accept: 'application/x-ndjson' };
    const url = `${stack.gatehouse.url}/api/v1/audit-events`;
    const answer = await fetch(url, { method: 'HEAD', headers });
    expect([answer.status, answer.headers.get('content-type')]).toEqual([
      200,
      'application/x-ndjson',
    ]);
    expect(await settled()).toBeLessThanOrEqual(2);
  });

  it('sees that it is not whole when the database fails in the middle', async () => {
    const response = await begin('?actorId=a');
    await settled();
    await rename('audit_event', 'elsewhere');
    try {
      const { lines, whole } = await readToEnd(response);
      expect(whole).toBe(false);
      expect(lines.length).toBeLessThan(EVENTS);
      expect(breaks()).toHaveLength(1);
    } finally {
      await rename('elsewhere', 'audit_event');
    }
  });
});

describe('one user', () => {
  it('has two exports at a time, and another when one of them has ended', async () => {
    const first = await begin('?actorId=a');
    const second = await begin('?actorId=a');
    const third = await ask('?actorId=a');
    const { lines } = await readToEnd(third);
    expect([third.statusCode, third.headers['retry-after'], lines]).toEqual([429, '30', []]);
    first.destroy();
    await until(async () => {
      const next = await ask('?actorId=a');
      next.destroy();
      return next.statusCode;
    }, 200);
    await readToEnd(second);
    await readToEnd(await begin('?actorId=a'));
  });

  it('does not hinder another', async () => {
    const other = await signUp(stack.authWithSid);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [other.id]);
    const own = [await begin('?actorId=a'), await begin('?actorId=a')];
    const theirs = await ask('?actorId=a', stack.gatehouse.url, other);
    expect(theirs.statusCode).toBe(200);
    for (const each of [...own, theirs]) each.destroy();
  });

  it('whose answer came too late can begin another', async () => {
    const asked = jest.spyOn(AuditRepository.prototype, 'findLinesBefore');
    asked.mockImplementation(async () => {
      await sleep(3000);
      return { text: '', next: null };
    });
    const late = await Promise.all([ask('?actorId=a'), ask('?actorId=a')]);
    expect(late.map(({ statusCode }) => statusCode)).toEqual([503, 503]);
    await sleep(1000);
    asked.mockRestore();
    (await begin('?actorId=a')).destroy();
  });
});

it.each([
  ['is banned', `update "user" set banned = true where id = $1`],
  ['is not an admin any more', `update "user" set role = 'user' where id = $1`],
  ['is signed out', `delete from session where "userId" = $1`],
  ['is deleted', `delete from "user" where id = $1`],
])('ends before the next batch when its caller %s', async (_how, sql) => {
  const grace = await signUp(stack.authWithSid);
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [grace.id]);
  const response = await ask('?actorId=a', stack.gatehouse.url, grace);
  expect(response.statusCode).toBe(200);
  await stack.database.sql(sql, [grace.id]);
  const { lines, whole } = await readToEnd(response);
  expect(whole).toBe(false);
  expect(lines.length).toBeLessThan(EVENTS / 2);
});

it('is ended after 30 s in which its client takes nothing', async () => {
  stack.gatehouse.lines.length = 0;
  const unread = await begin('?actorId=a');
  const slow = await begin('?actorId=a');
  const ended = until(
    () => stack.gatehouse.lines.filter(({ aborted }) => aborted === true).length,
    1,
    60,
  );
  let isSlowDone = false;
  const reading = ended.then(() => (isSlowDone = true));
  // Much less than a batch at a time.
  while (!isSlowDone) {
    slow.read(1000);
    await Promise.race([sleep(1000), reading]);
  }
  expect((await readToEnd(unread)).whole).toBe(false);
  expect((await readToEnd(slow)).whole).toBe(true);
}, 90_000);

const start = () =>
  startProcess({
    DATABASE_URL: stack.database.url,
    BETTER_AUTH_URL: stack.auth.origin,
    SHUTDOWN_DELAY_MS: '0',
  });

describe('SIGTERM', () => {
  it('lets an export finish that somebody reads', async () => {
    const served = await start();
    const response = await begin('?actorId=a', served.url);
    served.child.kill('SIGTERM');
    await until(() => served.output.stdout.includes('"msg":"ending"'), true);
    const { lines, whole } = await readToEnd(response);
    expect([lines.length, whole]).toEqual([EVENTS, true]);
    expect((await served.end()).code).toBe(0);
  });

  it('cuts one that nobody reads, so that its client sees that it is not whole, and ends', async () => {
    const served = await start();
    const response = await begin('?actorId=a', served.url);
    const { code, ms } = await served.end('SIGTERM');
    const { lines, whole } = await readToEnd(response);
    expect(whole).toBe(false);
    expect(lines.length).toBeLessThan(EVENTS);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(13_000);
    expect(served.output.stderr).toBe('');
    expect(served.lines()).toContainEqual(
      expect.objectContaining({
        msg: 'closing connections with requests still in flight',
        inFlight: 1,
      }),
    );
  });
});
