import { Controller, Get, Module } from '@nestjs/common';
import { SkipThrottle, Throttle } from '@nestjs/throttler';
import type { Response } from 'express';
import { Public } from '../src/auth/decorators.js';
import { RateLimits, userOf } from '../src/common/rate-limits.js';
import { Environment } from '../src/config/environment.js';
import { type RunningApp, startApp } from './app.js';
import { signUp } from './clients.js';
import { type Stack, startStack } from './stack.js';

@Controller('limited')
class LimitedController {
  @Get('dear')
  @Throttle({ default: { limit: 1, ttl: 30_000 } })
  dear(): void {}

  @Get('free')
  @SkipThrottle()
  free(): void {}

  @Get('open')
  @Public()
  open(): void {}
}

@Module({ controllers: [LimitedController] })
class LimitedModule {}

const ME = '/api/v1/auth/me';
const LIMIT = 5;

let stack: Stack;
beforeAll(async () => (stack = await startStack()));
afterAll(() => stack.end());

let gatehouse: RunningApp;
beforeEach(() => start());
afterEach(() => gatehouse.close());

/** Each test begins with nothing counted. */
async function start(variables: Record<string, string> = {}): Promise<void> {
  gatehouse = await startApp(
    {
      DATABASE_URL: stack.database.url,
      BETTER_AUTH_URL: stack.auth.origin,
      RATE_LIMIT_PER_MINUTE: String(LIMIT),
      // What is changed by hand here is looked at by the very next request.
      CHANGE_FEED: 'off',
      ...variables,
    },
    [LimitedModule],
  );
}

async function restart(variables: Record<string, string>): Promise<void> {
  await gatehouse.close();
  await start(variables);
}

/** The statuses of so many calls, one after another. */
async function statuses(count: number, token: string, path = ME, from?: string): Promise<number[]> {
  const seen = [];
  for (let call = 0; call < count; call += 1) {
    const headers: Record<string, string> = from === undefined ? {} : { 'x-forwarded-for': from };
    seen.push((await gatehouse.call(path, { token, headers })).status);
  }
  return seen;
}

const guess = async (from: string) => (await statuses(1, 'made-up', ME, from))[0];

const ask = async (path: string) => (await fetch(gatehouse.url + path)).status;

const times = (status: number, count: number) => Array<number>(count).fill(status);

describe('a user', () => {
  it('is told what is left, and refused when nothing is', async () => {
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

  it('is one user with all their tokens, and others at the same address are not that user', async () => {
    const ada = await signUp(stack.auth);
    const bob = await signUp(stack.auth);
    const again = await stack.authWithSid.tokenFor(ada.session);
    expect(await statuses(3, ada.token)).toEqual(times(200, 3));
    expect(await statuses(3, again)).toEqual([200, 200, 429]);
    expect(await statuses(1, bob.token)).toEqual([200]);
  });

  it('who is banned is counted by themselves, and nobody else at the address for it', async () => {
    const eve = await signUp(stack.auth);
    expect(await statuses(1, eve.token)).toEqual([200]);
    await stack.database.sql('update "user" set banned = true where id = $1', [eve.id]);
    expect(await statuses(LIMIT + 1, eve.token)).toEqual([...times(403, LIMIT), 429]);
    expect(await statuses(1, 'made-up')).toEqual([401]);
  });
});

it('who tries an ended session again and again keeps nobody out of another', async () => {
  const ada = await signUp(stack.authWithSid);
  expect(await statuses(1, ada.token)).toEqual([200]);
  await stack.authWithSid.signOut(ada.session);
  expect(await statuses(LIMIT + 1, ada.token)).toEqual([...times(401, LIMIT), 429]);
  const { sessionToken } = await stack.authWithSid.signIn(ada);
  const another = await stack.authWithSid.tokenFor(sessionToken);
  expect(await statuses(2, another)).toEqual([200, 200]);
});

it('the documents are counted by address, like every public route', async () => {
  const paths = ['/api/v1/docs', '/api/v1/openapi.json', '/api/v1/docs/swagger-ui.css'];
  for (const path of paths) expect(await ask(path)).toBe(200);
  for (const path of paths.slice(0, LIMIT - 3)) expect(await ask(path)).toBe(200);
  expect(await ask('/api/v1/docs/swagger-ui-init.js')).toBe(429);
});

describe('an address', () => {
  it('that guesses is refused before a token is looked at, while known users go on', async () => {
    const ada = await signUp(stack.auth);
    expect(await statuses(1, ada.token)).toEqual([200]);
    expect(await statuses(LIMIT + 2, 'made-up')).toEqual([...times(401, LIMIT), 429, 429]);
    expect(await statuses(1, ada.token)).toEqual([200]);
    // A good token that was never seen here is a guess until it is verified.
    const bob = await signUp(stack.auth);
    expect(await statuses(1, bob.token)).toEqual([429]);
  });

  it('is not what a stranger says it is', async () => {
    for (let host = 1; host <= LIMIT; host += 1) {
      expect(await statuses(1, 'made-up', ME, `203.0.113.${host}`)).toEqual([401]);
    }
    expect(await statuses(1, 'made-up', ME, '203.0.113.99')).toEqual([429]);
  });

  it('behind a proxy is what the proxy says, IPv6 by /64', async () => {
    await restart({ TRUST_PROXY: '1' });
    for (let host = 1; host <= LIMIT; host += 1) {
      expect(await guess(`2001:db8:0:1::${host}`)).toBe(401);
    }
    expect(await guess('2001:db8:0:1:ffff::1')).toBe(429);
    expect(await guess('2001:db8:0:2::1')).toBe(401);
    for (let call = 0; call < LIMIT; call += 1) expect(await guess('203.0.113.7')).toBe(401);
    expect(await guess('::ffff:203.0.113.7')).toBe(429);
    expect(await guess('203.0.113.8')).toBe(401);
    // What is no address is counted where it came from.
    for (let call = 0; call < LIMIT; call += 1) expect(await guess(`nobody-${call}`)).toBe(401);
    expect(await guess('nobody-else')).toBe(429);
  });

  it('has nothing counted against it by an outage', async () => {
    const { token } = await signUp(stack.auth);
    await restart({ JWKS_URL: 'http://127.0.0.1:9/' });
    expect(await statuses(LIMIT + 1, token)).toEqual(times(503, LIMIT + 1));
  });
});

it('counts a public route by address, and no probe', async () => {
  const open = '/api/v1/limited/open';
  for (let call = 0; call < LIMIT; call += 1) expect(await ask(open)).toBe(200);
  expect(await ask(open)).toBe(429);
  for (let call = 0; call <= LIMIT; call += 1) expect(await ask('/health/live')).toBe(200);
});

it('lets a route have an allowance of its own, or none', async () => {
  const { token } = await signUp(stack.auth);
  expect(await statuses(2, token, '/api/v1/limited/dear')).toEqual([200, 429]);
  expect(await statuses(LIMIT + 1, token, '/api/v1/limited/free')).toEqual(times(200, LIMIT + 1));
  expect(await statuses(LIMIT, token)).toEqual(times(200, LIMIT));
});

it('never says that more is left of a window than the window', () => {
  const said = new Set<string>();
  const response = { setHeader: (_name: string, value: string) => said.add(value) };
  const limits = new RateLimits(new Environment());
  for (let user = 0; user < 20_000; user += 1) {
    limits.count(userOf(String(user)), response as unknown as Response);
  }
  expect([...said].filter((value) => /t=6[1-9]/.test(value))).toEqual([]);
});

it('counts nothing at 0', async () => {
  await restart({ RATE_LIMIT_PER_MINUTE: '0' });
  const { token } = await signUp(stack.auth);
  expect(await statuses(LIMIT + 1, token)).toEqual(times(200, LIMIT + 1));
  expect(await statuses(LIMIT + 1, 'made-up')).toEqual(times(401, LIMIT + 1));
  expect((await gatehouse.call(ME, { token })).headers.get('ratelimit')).toBeNull();
});
