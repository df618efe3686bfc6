import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { findFreePort } from '../../tools/ports.ts';
import { createDocument } from '../../src/openapi/document.js';
import { administrationOf } from '../support/administration.js';
import { until } from '../support/app-process.js';
import { findProgram, missingProgram } from '../support/external-program.js';
import { SERVED_METRICS } from '../support/served-metrics.js';
import { type Stack, startStack } from '../support/stack.js';
import { startApp } from '../support/test-app.js';
import { signUp, type TestUser } from '../support/users.js';

const ME = '/api/v1/auth/me';
const LIMIT = 40;

let stack: Stack;
let metricsUrl: string;
const { newAdmin, callUsers } = administrationOf(() => stack);

beforeAll(async () => {
  const port = await findFreePort();
  metricsUrl = `http://127.0.0.1:${port}/metrics`;
  stack = await startStack({}, { METRICS_PORT: String(port), RATE_LIMIT_PER_MINUTE: `${LIMIT}` });
});
afterAll(() => stack.end());

interface Scrape {
  text: string;
  /** The value of one series, by its name and labels as in the text. */
  value(series: string): number | undefined;
  /** Every value of a label. */
  values(label: string): Set<string>;
}

async function scrape(): Promise<Scrape> {
  const response = await fetch(metricsUrl);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  const text = await response.text();
  const lines = text.split('\n');
  return {
    text,
    value: (series) => {
      const line = lines.find((candidate) => candidate.startsWith(`${series} `));
      return line === undefined ? undefined : parseValue(line.slice(series.length + 1));
    },
    values: (label) =>
      new Set([...text.matchAll(new RegExp(`[{,]${label}="([^"]*)"`, 'g'))].map(([, v = '']) => v)),
  };
}

function parseValue(text: string): number {
  return text === '+Inf' ? Number.POSITIVE_INFINITY : Number(text);
}

/** Sums a counter over all its series that match. */
function sum({ text }: Scrape, pattern: RegExp): number {
  return text
    .split('\n')
    .filter((line) => pattern.test(line))
    .reduce((total, line) => total + Number(line.split(' ').at(-1)), 0);
}

const get = (path: string, token?: string, method = 'GET') =>
  fetch(stack.gatehouse.url + path, {
    method,
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
  }).then(async (response) => {
    await response.text();
    return response.status;
  });

describe('a scrape after 200 mixed requests', () => {
  let ada: TestUser;
  let admin: TestUser;
  let after: Scrape;
  let sent = 0;
  const statuses = new Map<number, number>();

  const send = async (count: number, request: (n: number) => Promise<number>) => {
    for (let n = 0; n < count; n += 1) {
      const status = await request(n);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      sent += 1;
    }
  };

  beforeAll(async () => {
    [ada, admin] = [await signUp(stack.authWithSid), await newAdmin()];
    const other = await signUp(stack.authWithSid);
    // Until the feed is connected, no response comes from the cache.
    await until(async () => (await scrape()).value('gatehouse_change_feed_up'), 1);
    await send(60, () => get(ME, ada.token));
    await send(30, (n) => get(ME, `forged.token.${n}`));
    await send(20, () => get(ME));
    await send(30, (n) => get(`/nowhere/${ada.id}/${n}?token=${n}`));
    await send(9, () => get('/health/live'));
    await send(10, (n) => get(`/api/v1/users/unknown-${n}`, admin.token));
    await send(10, () => get(`/api/v1/users/${other.id}/sessions`, admin.token));
    await send(5, () => get(ME, admin.token, 'DELETE'));
    await send(10, () => get(ME, undefined, 'PROPFIND'));
    await send(10, () => get('/api/v1/users', other.token));
    await send(5, (n) => get(`/api/v1/users?cursor=${n}`, admin.token));
    await send(
      1,
      async () => (await callUsers(admin, 'POST', `${other.id}/ban`, { reason: 'spam' })).status,
    );
    after = await scrape();
  });

  it('has every metric, with a description and a value', () => {
    expect(sent).toBe(200);
    for (const [name, labels] of Object.entries(SERVED_METRICS)) {
      expect(after.text).toMatch(new RegExp(`^# HELP ${name} \\S`, 'm'));
      const series = after.text.matchAll(new RegExp(`^${name}(?:_bucket)?(?:\\{(.*)\\})? `, 'gm'));
      const used = [...series].flatMap(([, text = '']) => [...text.matchAll(/(\w+)="/g)]);
      expect(new Set(used.map(([, label]) => label))).toEqual(new Set(labels));
      expect(after.text).toMatch(new RegExp(`^${name}(_bucket|_count)?(\\{.*\\})? \\S+$`, 'm'));
    }
    expect(after.text.split('\n').length).toBeLessThan(3000);
  });

  it('has no id, address, token or path in a label', () => {
    const { paths } = createDocument(stack.gatehouse.app);
    const templates = Object.keys(paths).map((path) => path.replaceAll(/\{(\w+)\}/g, ':$1'));
    const routes = after.values('route');
    expect(routes).toContain('/api/v1/users/:id/sessions');
    for (const route of routes) expect([...templates, 'unmatched']).toContain(route);
    expect(after.values('method')).toEqual(new Set(['GET', 'POST', 'DELETE', 'other']));
    for (const secret of [
      ada.id,
      admin.id,
      ada.email,
      'forged',
      'nowhere',
      'unknown-',
      '127.0.0.1',
    ]) {
      expect(after.text).not.toContain(secret);
    }
  });

  it('counts every request once, by its status', () => {
    const count = /^http_server_request_duration_seconds_count\{/;
    expect(sum(after, count)).toBe(sent);
    for (const [status, expected] of statuses) {
      const ofStatus = new RegExp(
        `^http_server_request_duration_seconds_count\\{.*status="${status}"`,
      );
      expect([status, sum(after, ofStatus)]).toEqual([status, expected]);
    }
  });

  it('counts authentication by its result and code', () => {
    // Everything with a valid token, also beyond the rate limit, which is checked later.
    const accepted = 60 + 10 + 10 + 10 + 5 + 1;
    expect(after.value('gatehouse_auth_total{result="accepted",code="OK"}')).toBe(accepted);
    expect(after.value('gatehouse_auth_total{result="failed",code="AUTH_MISSING_TOKEN"}')).toBe(20);
    expect(after.value('gatehouse_auth_total{result="failed",code="AUTH_TOKEN_INVALID"}')).toBe(30);
    expect(after.value('gatehouse_rate_limited_total{kind="user"}')).toBe(60 - LIMIT);
    expect(after.value('gatehouse_rate_limited_total{kind="address"}')).toBe(0);
  });

  it('counts valid tokens and users that were cached', () => {
    const lookups = (cache: string, result: string) =>
      after.value(`gatehouse_cache_total{cache="${cache}",result="${result}"}`);
    expect([lookups('token', 'hit'), lookups('token', 'miss')]).toEqual([93, 3]);
    // On a busy machine the change feed can miss its lease, and then nothing is cached.
    expect(lookups('user', 'hit')).toBeGreaterThan(0);
    expect(Number(lookups('user', 'hit')) + Number(lookups('user', 'miss'))).toBe(96);
  });

  it('shows the change feed, the keys, the pool and its queries', () => {
    expect(after.value('gatehouse_change_feed_up')).toBe(1);
    expect(after.value('gatehouse_change_feed_age_seconds')).toBeLessThan(1);
    expect(after.value('gatehouse_jwks_keys')).toBe(1);
    expect(after.value('gatehouse_jwks_age_seconds')).toBeLessThan(300);
    expect(after.value('gatehouse_admin_actions_total{action="user.banned"}')).toBe(1);
    expect(after.value('gatehouse_admin_actions_total{action="user.unbanned"}')).toBe(0);
    const states = [...after.values('state')];
    expect(states).toEqual(['used', 'idle', 'waiting']);
    const open = states.map((state) =>
      after.value(`gatehouse_db_pool_connections{state="${state}"}`),
    );
    expect(open).toEqual([0, expect.any(Number), 0]);
    expect(open[1]).toBeGreaterThan(0);
    expect(after.value('gatehouse_db_query_duration_seconds_count')).toBeGreaterThan(10);
  });

  const promtool = findProgram('promtool');
  if (!promtool) it.skip(`passes promtool check metrics: ${missingProgram('promtool')}`, () => {});
  else {
    it('passes promtool check metrics', () => {
      const output = execFileSync(promtool, ['check', 'metrics'], { input: after.text });
      expect(output.toString()).toBe('');
    });
  }
});

describe('the listener of the metrics', () => {
  it('serves only GET /metrics', async () => {
    const { origin } = new URL(metricsUrl);
    const status = async (path: string, method = 'GET') =>
      (await fetch(origin + path, { method })).status;
    expect(await status('/metrics?any=thing')).toBe(200);
    expect(await status('/metrics', 'POST')).toBe(405);
    expect(await status('/')).toBe(404);
    expect(await status('/health/live')).toBe(404);
    expect(await status(ME)).toBe(404);
  });

  it('is not the listener of the API', async () => {
    expect(await get('/metrics')).toBe(404);
  });

  it('accepts 32 connections, and closes those of peers that are too slow', async () => {
    const METRICS_PORT = String(await findFreePort());
    const gatehouse = await startApp({
      DATABASE_URL: stack.database.url,
      BETTER_AUTH_URL: stack.auth.origin,
      METRICS_PORT,
    });
    const request = 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n';
    const slowPeers: ((socket: Socket) => unknown)[] = [
      () => 'sends nothing',
      // Sends another byte of the headers again and again.
      (socket) => {
        const timer = setInterval(
          () => socket.write(socket.bytesWritten === 0 ? request : 'a'),
          300,
        );
        socket.on('close', () => clearInterval(timer));
      },
      // Only waits after the response.
      (socket) => socket.resume().write(`${request}\r\n`),
      (socket) => socket.write(`${request}Content-Length: 9\r\n\r\n`),
      // Never reads the responses, which are more than the buffers between both can hold.
      (socket) => socket.pause().write(`${request}\r\n`.repeat(2000)),
    ];
    const open = async (behave: (socket: Socket) => unknown) => {
      const socket = connect(Number(METRICS_PORT), '127.0.0.1').on('error', () => undefined);
      await once(socket, 'connect');
      behave(socket);
      return socket;
    };
    const sockets: Socket[] = [];
    /** Opens as many connections at once as are accepted, and counts the responses. */
    const countServed = async () => {
      const answers = Array.from({ length: 32 }, async () => {
        const socket = await open((opened) => opened.write(`${request}\r\n`));
        sockets.push(socket);
        const events = [once(socket, 'data'), once(socket, 'close')];
        const [first] = await Promise.race(events).catch(() => ['the connection was reset']);
        return String(first).startsWith('HTTP/1.1 200');
      });
      const served = (await Promise.all(answers)).filter(Boolean).length;
      for (const socket of sockets.splice(0)) socket.destroy();
      return served;
    };
    const slow = [];
    for (let peer = 0; peer < 32; peer += 1) {
      slow.push(await open(slowPeers[peer % 5] ?? (() => undefined)));
    }
    try {
      expect(await countServed()).toBe(0);
      await until(countServed, 32, 30);
    } finally {
      for (const socket of slow) socket.destroy();
      await gatehouse.close();
    }
  }, 60_000);
});

it('does not count a change whose transaction fails at its commit', async () => {
  const [admin, user] = [await newAdmin(), await signUp(stack.authWithSid)];
  const counted = async () =>
    (await scrape()).value('gatehouse_admin_actions_total{action="user.banned"}');
  const before = await counted();
  await stack.database.sql(`
    create function refuse_commit() returns trigger language plpgsql as $$
      begin raise exception 'refused' using errcode = 'serialization_failure'; end $$;
    create constraint trigger refuse_commit after insert on gatehouse.audit_event
      deferrable initially deferred for each row execute function refuse_commit()`);
  const refused = await callUsers(admin, 'POST', `${user.id}/ban`, { reason: 'spam' });
  expect(refused.status).toBe(503);
  expect(await counted()).toBe(before);
  await stack.database.sql('drop function refuse_commit cascade');
  const banned = await callUsers(admin, 'POST', `${user.id}/ban`, { reason: 'spam' });
  expect(banned.status).toBe(200);
  expect(await counted()).toBe((before ?? 0) + 1);
});

it('reports that the change feed is down while its triggers are missing', async () => {
  await stack.database.sql('alter table "user" disable trigger gatehouse_record_update');
  await until(async () => (await scrape()).value('gatehouse_change_feed_up'), 0);
  expect((await scrape()).value('gatehouse_change_feed_age_seconds')).toBeGreaterThan(1);
});
