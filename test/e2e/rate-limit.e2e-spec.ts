import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { SkipThrottle, Throttle } from '@nestjs/throttler';
import type { Response } from 'express';
import { Public } from '../../src/access/decorators.js';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { CpuBudget } from '../../src/rate-limit/cpu-budget.js';
import { type RateLimitKey, RateLimiter, userKey } from '../../src/rate-limit/rate-limiter.js';
import { Environment } from '../../src/config/environment.js';
import { Metrics } from '../../src/metrics/metrics.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { claimsOf, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

@Controller('limited')
class LimitedController {
  @Get('strict')
  @Throttle({ default: { limit: 1, ttl: 30_000 } })
  strict(): void {}

  @Get('limit-only')
  @Throttle({ default: { limit: 2 } })
  limitOnly(): void {}

  @Get('window-only')
  @Throttle({ default: { ttl: 30_000 } })
  windowOnly(): void {}

  @Get('unlimited')
  @SkipThrottle()
  unlimited(): void {}

  @Get('public')
  @Public()
  public(): void {}
}

@Module({ controllers: [LimitedController] })
class LimitedModule {}

const ME = '/api/v1/auth/me';
const LIMIT = 5;
/** After this time, no request is answered from data that is older than a change. */
const LEASE_MS = 300;

let stack: Stack;
/** The same Better-Auth, with tokens that expire after a second. */
let shortLived: BetterAuth;
beforeAll(async () => {
  stack = await startStack();
  shortLived = await startBetterAuth({
    databaseUrl: stack.database.url,
    publicOrigin: stack.auth.origin,
    expirationTime: '1s',
  });
});
afterAll(async () => {
  await shortLived.stop();
  await stack.end();
});

let gatehouse: RunningApp;
beforeEach(() => start());
afterEach(() => gatehouse.close());

/** Each test starts with empty counters. */
async function start(variables: Record<string, string> = {}): Promise<void> {
  gatehouse = await startApp(
    {
      DATABASE_URL: stack.database.url,
      BETTER_AUTH_URL: stack.auth.origin,
      RATE_LIMIT_PER_MINUTE: String(LIMIT),
      // The tests change rows by SQL. Without the change feed the next request reads them uncached.
      CHANGE_FEED: 'off',
      ...variables,
    },
    { modules: [LimitedModule] },
  );
}

async function restart(variables: Record<string, string>): Promise<void> {
  await gatehouse.close();
  await start(variables);
}

/** Sends `count` requests one after another, and returns their statuses. */
async function statuses(count: number, token: string, path = ME, from?: string): Promise<number[]> {
  const received = [];
  for (let call = 0; call < count; call += 1) {
    const headers: Record<string, string> = from === undefined ? {} : { 'x-forwarded-for': from };
    received.push((await gatehouse.call(path, { token, headers })).status);
  }
  return received;
}

const guessFrom = async (from: string) => (await statuses(1, 'made-up', ME, from))[0];

const statusOf = async (path: string) => (await fetch(gatehouse.url + path)).status;

const repeat = (status: number, count: number) => Array<number>(count).fill(status);

describe('rate limit of a user', () => {
  it('reports the remaining requests of a user, and rejects requests above the limit', async () => {
    const { token } = await signUp(stack.auth);
    for (let left = LIMIT - 1; left >= 0; left -= 1) {
      const { status, headers } = await gatehouse.call(ME, { token });
      expect(status).toBe(200);
      expect(headers.get('ratelimit-policy')).toBe(`"user";q=${LIMIT};w=60`);
      expect(headers.get('ratelimit')).toMatch(new RegExp(`^"user";r=${left};t=(60|5\\d)$`));
    }
    const { status, headers, body } = await gatehouse.call(ME, { token });
    expect(status).toBe(429);
    expect(body).toMatchObject({ code: 'RATE_LIMITED', status: 429, instance: ME });
    expect(headers.get('ratelimit')).toMatch(/^"user";r=0;/);
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
    expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(60);
  });

  it('counts all tokens of a user together, and other users at the same address separately', async () => {
    const ada = await signUp(stack.auth);
    const bob = await signUp(stack.auth);
    const again = await stack.authWithSid.tokenFor(ada.session);
    expect(await statuses(3, ada.token)).toEqual(repeat(200, 3));
    expect(await statuses(3, again)).toEqual([200, 200, 429]);
    expect(await statuses(1, bob.token)).toEqual([200]);
  });

  it('counts requests of a banned user against that user, and not against the address', async () => {
    const eve = await signUp(stack.auth);
    expect(await statuses(1, eve.token)).toEqual([200]);
    await stack.database.sql('update "user" set banned = true where id = $1', [eve.id]);
    expect(await statuses(LIMIT + 1, eve.token)).toEqual([...repeat(403, LIMIT), 429]);
    expect(await statuses(1, 'made-up')).toEqual([401]);
  });
});

describe('rate limit of failures of a subject', () => {
  it('counts the failures of all ended sessions of a subject together', async () => {
    const ada = await signUp(stack.authWithSid);
    const tokens = [ada.token];
    while (tokens.length < 4) {
      const { sessionToken } = await stack.authWithSid.signIn(ada);
      tokens.push(await stack.authWithSid.tokenFor(sessionToken));
    }
    await stack.database.sql('delete from session where "userId" = $1', [ada.id]);
    for (const token of tokens) expect(await statuses(1, token)).toEqual([401]);
    expect(await statuses(1, tokens[0] as string)).toEqual([401]);
    for (const token of tokens) expect(await statuses(1, token)).toEqual([429]);
  });

  it.each(['off', 'on'])(
    'accepts live sessions of a subject above its failure limit, cached or not (CHANGE_FEED=%s)',
    async (feed) => {
      await restart({ CHANGE_FEED: feed });
      const ada = await signUp(stack.authWithSid);
      const { sessionToken } = await stack.authWithSid.signIn(ada);
      const liveToken = await stack.authWithSid.tokenFor(sessionToken);
      expect(await statuses(1, liveToken)).toEqual([200]);
      expect(await statuses(1, ada.token)).toEqual([200]);
      await stack.authWithSid.signOut(ada.session);
      await sleep(LEASE_MS);
      const rejected = await statuses(LIMIT + 4, ada.token);
      expect(rejected.at(-1)).toBe(429);
      expect(await statuses(1, liveToken)).toEqual([200]);
      // A change of the user invalidates the cache entries of all sessions.
      await stack.database.sql('update "user" set name = $2 where id = $1', [ada.id, 'Countess']);
      await sleep(LEASE_MS);
      expect(await statuses(1, liveToken)).toEqual([200]);
      const { sessionToken: third } = await stack.authWithSid.signIn(ada);
      expect(await statuses(1, await stack.authWithSid.tokenFor(third))).toEqual([200]);
    },
  );

  it('checks each failed token of an exhausted subject again every few seconds', async () => {
    const eve = await signUp(stack.auth);
    const ban = (banned: boolean) =>
      stack.database.sql('update "user" set banned = $2 where id = $1', [eve.id, banned]);
    await ban(true);
    expect(await statuses(LIMIT + 1, eve.token)).toEqual([...repeat(403, LIMIT), 429]);
    await sleep(5100);
    // The check counts as a failure, like every other, and does not open the way for more.
    expect(await statuses(2, eve.token)).toEqual([403, 429]);
    await ban(false);
    expect(await statuses(1, eve.token)).toEqual([429]);
    await sleep(5100);
    expect(await statuses(2, eve.token)).toEqual([200, 200]);
  }, 30_000);

  it('reports a newer token as expired after an old token of the same subject reached the limit', async () => {
    await restart({ JWT_LEEWAY_SECONDS: '0' });
    const ada = await signUp(shortLived);
    await expire(ada.token);
    expect(await statuses(LIMIT + 1, ada.token)).toEqual([...repeat(401, LIMIT), 429]);
    const newer = await shortLived.tokenFor(ada.session);
    await expire(newer);
    const { status, body } = await gatehouse.call(ME, { token: newer });
    expect([status, body.code]).toEqual([401, 'AUTH_TOKEN_EXPIRED']);
    expect(await statuses(1, await stack.auth.tokenFor(ada.session))).toEqual([200]);
  });
});

it('counts requests for the OpenAPI documents by address, as for every public route', async () => {
  const paths = ['/api/v1/docs', '/api/v1/openapi.json', '/api/v1/docs/swagger-ui.css'];
  for (const path of paths) expect(await statusOf(path)).toBe(200);
  for (const path of paths.slice(0, LIMIT - 3)) expect(await statusOf(path)).toBe(200);
  expect(await statusOf('/api/v1/docs/swagger-ui-init.js')).toBe(429);
});

/** A token with a valid header and payload, and a wrong signature. */
const forge = (token: string, n = 0) => `${token.slice(0, -20)}${String(n).padStart(20, 'A')}`;

async function expire(...tokens: string[]): Promise<void> {
  const expiries = tokens.map((token) => Number(claimsOf(token)['exp']) * 1000);
  await sleep(Math.max(0, Math.max(...expiries) - Date.now()) + 50);
}

/** Inserts users by SQL. Hundreds of password hashes would take too long. */
async function signUpMany(count: number): Promise<string[]> {
  const rows = await stack.database.sql<{ token: string }>(
    `with people as (
       insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
       select 'm-' || gen_random_uuid(), 'Many', gen_random_uuid() || '@example.com', true, now(), now()
       from generate_series(1, $1::int) returning id
     )
     insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
     select gen_random_uuid(), replace(gen_random_uuid()::text, '-', ''), id,
       now() + interval '1 day', now() - interval '1 minute', now()
     from people returning token`,
    [count],
  );
  return rows.map(({ token }) => token);
}

async function tokensOf(auth: BetterAuth, sessions: string[]): Promise<string[]> {
  const tokens = [];
  for (const session of sessions) tokens.push(await auth.tokenFor(session));
  return tokens;
}

describe('rate limit of an address', () => {
  it('rejects invalid tokens from an address above the limit, and accepts its valid ones, cached or not', async () => {
    const ada = await signUp(stack.auth);
    const bob = await signUp(stack.auth);
    expect(await statuses(1, ada.token)).toEqual([200]);
    expect(await statuses(LIMIT + 2, 'made-up')).toEqual([...repeat(401, LIMIT), 429, 429]);
    expect(await statuses(2, forge(bob.token))).toEqual([429, 429]);
    expect(await statuses(1, ada.token)).toEqual([200]);
    expect(await statuses(1, bob.token)).toEqual([200]);
  });

  it('accepts renewed tokens from an address whose 300 clients sent expired ones', async () => {
    await restart({
      RATE_LIMIT_PER_MINUTE: '300',
      JWT_LEEWAY_SECONDS: '0',
      CHANGE_FEED: 'on',
      // The default: all clients behind a load balancer have one address.
      TRUST_PROXY: 'false',
    });
    const sessions = await signUpMany(301);
    const expired = await tokensOf(shortLived, sessions);
    await expire(...expired);
    for (const token of expired) {
      const { status, body } = await gatehouse.call(ME, { token });
      expect([status, body.code]).toEqual([401, 'AUTH_TOKEN_EXPIRED']);
    }
    const renewed = await tokensOf(stack.auth, sessions.slice(0, 20));
    for (const token of renewed) expect(await statuses(1, token)).toEqual([200]);
    // An attacker at the same address must not lock the others out either.
    expect((await statuses(301, 'made-up')).at(-1)).toBe(429);
    const others = await tokensOf(stack.auth, sessions.slice(20, 40));
    for (const token of others) expect(await statuses(1, token)).toEqual([200]);
  });

  it('reports an expired token as expired from an address above the limit, so that its client renews it', async () => {
    await restart({ JWT_LEEWAY_SECONDS: '0' });
    const ada = await signUp(shortLived);
    await expire(ada.token);
    await statuses(LIMIT, 'made-up');
    const { status, body } = await gatehouse.call(ME, { token: ada.token });
    expect([status, body.code]).toEqual([401, 'AUTH_TOKEN_EXPIRED']);
  });

  it('does not count requests without a token against the address', async () => {
    for (let call = 0; call <= LIMIT; call += 1) expect(await statusOf(ME)).toBe(401);
    expect(await statuses(1, 'made-up')).toEqual([401]);
    await statuses(LIMIT, 'made-up');
    const { status, body } = await gatehouse.call(ME);
    expect([status, body.code]).toEqual([401, 'AUTH_MISSING_TOKEN']);
  });

  it('does not count genuine tokens of ended sessions against the address', async () => {
    const eve = await signUp(stack.auth);
    for (let session = 0; session <= LIMIT; session += 1) {
      const ended = await stack.authWithSid.signIn(eve);
      const token = await stack.authWithSid.tokenFor(ended.sessionToken);
      await stack.database.sql('delete from session where "userId" = $1', [eve.id]);
      expect(await statuses(1, token)).toEqual([401]);
    }
    expect(await statuses(1, 'made-up')).toEqual([401]);
  });

  it('ignores X-Forwarded-For when TRUST_PROXY is off', async () => {
    for (let host = 1; host <= LIMIT; host += 1) {
      expect(await statuses(1, 'made-up', ME, `203.0.113.${host}`)).toEqual([401]);
    }
    expect(await statuses(1, 'made-up', ME, '203.0.113.99')).toEqual([429]);
  });

  it('takes the address from a trusted proxy, and groups IPv6 addresses by /64', async () => {
    await restart({ TRUST_PROXY: '1' });
    for (let host = 1; host <= LIMIT; host += 1) {
      expect(await guessFrom(`2001:db8:0:1::${host}`)).toBe(401);
    }
    expect(await guessFrom('2001:db8:0:1:ffff::1')).toBe(429);
    expect(await guessFrom('2001:db8:0:2::1')).toBe(401);
    for (let call = 0; call < LIMIT; call += 1) expect(await guessFrom('203.0.113.7')).toBe(401);
    expect(await guessFrom('::ffff:203.0.113.7')).toBe(429);
    expect(await guessFrom('203.0.113.8')).toBe(401);
    // An invalid address counts against the proxy. An address with a zone is invalid here.
    for (let call = 0; call < LIMIT; call += 1) expect(await guessFrom(`nobody-${call}`)).toBe(401);
    expect(await guessFrom('nobody-else')).toBe(429);
    for (const zoned of ['1.2.3.4%a', '1.2.3.4%b', '2001:db8::1%c', 'fe80::1%eth0']) {
      expect(await guessFrom(zoned)).toBe(429);
    }
  });

  it('does not count requests that fail in an outage against the address', async () => {
    const { token } = await signUp(stack.auth);
    await restart({ JWKS_URL: 'http://127.0.0.1:9/' });
    expect(await statuses(LIMIT + 1, token)).toEqual(repeat(503, LIMIT + 1));
  });
});

it('counts requests for a public route by address, and does not count probes', async () => {
  const publicRoute = '/api/v1/limited/public';
  for (let call = 0; call < LIMIT; call += 1) expect(await statusOf(publicRoute)).toBe(200);
  expect(await statusOf(publicRoute)).toBe(429);
  for (let call = 0; call <= LIMIT; call += 1) expect(await statusOf('/health/live')).toBe(200);
});

it('lets a route have its own limit, or no limit', async () => {
  const { token } = await signUp(stack.auth);
  expect(await statuses(2, token, '/api/v1/limited/strict')).toEqual([200, 429]);
  expect(await statuses(LIMIT + 1, token, '/api/v1/limited/unlimited')).toEqual(
    repeat(200, LIMIT + 1),
  );
  expect(await statuses(LIMIT, token)).toEqual(repeat(200, LIMIT));
});

it.each([
  ['strict', '"user";q=1;w=30'],
  ['limit-only', '"user";q=2;w=60'],
  ['window-only', `"user";q=${LIMIT};w=30`],
])('applies the default to what the decorator of the route %s omits', async (route, policy) => {
  const { token } = await signUp(stack.auth);
  for (let call = 0; call < 2; call += 1) {
    const { headers } = await gatehouse.call(`/api/v1/limited/${route}`, { token });
    expect(headers.get('ratelimit-policy')).toBe(policy);
  }
});

const isBusy = ({ reason }: Record<string, unknown>) => reason === 'signature-budget';

it('rejects a token with 429 when its address is above the limit and the CPU budget is used up', async () => {
  // These signatures cost the most, so that one client can use up the budget.
  const slow = await startStack({ algorithm: 'ES512' }, { RATE_LIMIT_PER_MINUTE: String(LIMIT) });
  try {
    const { gatehouse: limited } = slow;
    const ada = await signUp(slow.auth);
    expect((await limited.call(ME, { token: ada.token })).status).toBe(200);
    let answer;
    for (let n = 0; n < 5000 && !limited.lines.some(isBusy); n += 1) {
      answer = await limited.call(ME, { token: forge(ada.token, n) });
    }
    expect([answer?.status, answer?.headers.get('retry-after')]).toEqual([429, '2']);
    expect(answer?.body.code).toBe('RATE_LIMITED');
    expect((await limited.call(ME, { token: ada.token })).status).toBe(200);
  } finally {
    await slow.end();
  }
});

it('warns once about a proxy while TRUST_PROXY is off, and never while it is on', async () => {
  const warnings = () => gatehouse.lines.filter(({ event }) => event === 'proxy.ignored');
  await gatehouse.call(ME);
  expect(warnings()).toEqual([]);
  await gatehouse.call(ME, { headers: { forwarded: 'for=203.0.113.7' } });
  await gatehouse.call(ME, { headers: { 'x-forwarded-for': '203.0.113.7' } });
  expect(warnings()).toEqual([
    expect.objectContaining({ level: 'warn', msg: expect.stringContaining('TRUST_PROXY') }),
  ]);
  await restart({ TRUST_PROXY: '1' });
  await gatehouse.call(ME, { headers: { 'x-forwarded-for': '203.0.113.7' } });
  expect(warnings()).toEqual([]);
});

const address = (id: string): RateLimitKey => ({ kind: 'address', id });

it('keeps an address above its limit while 150,000 other addresses are counted', () => {
  const response = { setHeader: () => response } as unknown as Response;
  const limits = new RateLimiter(new Environment(), new Metrics());
  for (let failure = 0; failure < 300; failure += 1) {
    limits.countFailure(address('exhausted'), response);
  }
  for (let call = 0; call < 301; call += 1) {
    try {
      limits.count(address('exhausted'), response);
    } catch {
      expect(call).toBe(300);
    }
  }
  for (let other = 0; other < 150_000; other += 1) {
    limits.countFailure(address(`other-${other}`), response);
  }
  expect(limits.isExhausted(address('exhausted'))).toBe(true);
  expect(() => limits.count(address('exhausted'), response)).toThrow('Too many requests');
  expect(limits.isExhausted(address('other-149999'))).toBe(false);
});

it('limits work to the share of CPU time of its budget', () => {
  let now = 0;
  let cpu = 0;
  const budget = new CpuBudget(
    0.1,
    () => now,
    () => cpu,
  );
  const work = (cost: number) => budget.run(() => (cpu += cost));
  // The accumulated budget of 500 ms.
  for (let run = 1; run <= 100; run += 1) expect(work(5)).toBe(run * 5);
  expect(work(5)).toBeUndefined();
  // Afterwards a tenth of the time, for cheap and for expensive work.
  const before = cpu;
  for (; now < 100_000; now += 1) work(now < 50_000 ? 0.2 : 3);
  expect(cpu - before).toBeGreaterThan(9_500);
  expect(cpu - before).toBeLessThan(10_010);
});

it('never reports a reset time longer than the window', () => {
  const sentHeaders = new Set<string>();
  const response = { setHeader: (_name: string, value: string) => sentHeaders.add(value) };
  const limits = new RateLimiter(new Environment(), new Metrics());
  for (let user = 0; user < 20_000; user += 1) {
    limits.count(userKey(String(user)), response as unknown as Response);
  }
  expect([...sentHeaders].filter((value) => /t=6[1-9]/.test(value))).toEqual([]);
});

it('applies no rate limit when RATE_LIMIT_PER_MINUTE is 0', async () => {
  await restart({ RATE_LIMIT_PER_MINUTE: '0' });
  const { token } = await signUp(stack.auth);
  expect(await statuses(LIMIT + 1, token)).toEqual(repeat(200, LIMIT + 1));
  expect(await statuses(LIMIT + 1, 'made-up')).toEqual(repeat(401, LIMIT + 1));
  expect((await gatehouse.call(ME, { token })).headers.get('ratelimit')).toBeNull();
});
