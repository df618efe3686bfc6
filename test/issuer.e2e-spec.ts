import { randomBytes } from 'node:crypto';
import { Agent, createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BetterAuth, startBetterAuth } from '../dev/better-auth.ts';
import { type RunningApp, startApp } from './app.js';
import { signUp } from './clients.js';
import { createDatabase, type TestDatabase } from './database.js';

let database: TestDatabase;
beforeEach(async () => (database = await createDatabase()));
afterEach(() => database.drop());

const me = async (gatehouse: RunningApp, token: string) =>
  (await gatehouse.call('/api/v1/auth/me', { token })).status;

const keyOf = (token: string) =>
  (JSON.parse(Buffer.from(token.split('.', 1)[0] ?? '', 'base64url').toString()) as { kid: string })
    .kid;

/** Asks again and again until the answer is the wanted one, for a bounded time. */
async function eventually<Value>(ask: () => Promise<Value>, wanted: Value, seconds = 10) {
  const began = performance.now();
  let seen = await ask();
  while (seen !== wanted && performance.now() - began < seconds * 1000) {
    await sleep(50);
    seen = await ask();
  }
  expect(seen).toEqual(wanted);
  return performance.now() - began;
}

/** What stands before the issuer's key set: it counts, and can be told to be away. */
async function startCounter(auth: () => BetterAuth) {
  const counter = { fetches: 0, away: false, url: '', close: () => undefined as void };
  const server: Server = createServer((_request, response) => {
    counter.fetches += 1;
    if (counter.away) return void response.destroy();
    void fetch(`${auth().url}/api/auth/jwks`)
      .then((answer) => answer.text())
      .then((body) => response.setHeader('content-type', 'application/json').end(body));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  counter.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`;
  counter.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return counter;
}

describe('key rotation by a real Better-Auth', () => {
  it('accepts the new key at its first use, and the old one as long as it is published', async () => {
    const auth = await startBetterAuth({
      databaseUrl: database.url,
      rotationInterval: 2,
      gracePeriod: 3600,
    });
    const gatehouse = await startApp({ DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin });
    try {
      const ada = await signUp(auth);
      expect(await me(gatehouse, ada.token)).toBe(200);
      await sleep(2500);
      const next = await auth.tokenFor(ada.session);
      expect(keyOf(next)).not.toBe(keyOf(ada.token));
      expect(await me(gatehouse, next)).toBe(200);
      expect(await me(gatehouse, ada.token)).toBe(200);
    } finally {
      await gatehouse.close();
      await auth.stop();
    }
  });

  it('refuses a key that has left the set, at the next refresh', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url });
    const gatehouse = await startApp({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: auth.origin,
      JWKS_REFRESH_SECONDS: '1',
    });
    try {
      const ada = await signUp(auth);
      expect(await me(gatehouse, ada.token)).toBe(200);
      await database.sql('delete from jwks');
      const next = await auth.tokenFor(ada.session);
      await eventually(() => me(gatehouse, ada.token), 401);
      expect(await me(gatehouse, next)).toBe(200);
    } finally {
      await gatehouse.close();
      await auth.stop();
    }
  });
});

describe('an issuer that is away', () => {
  it('from the start: 503 and not 401, and 200 soon after it is there', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url });
    const ada = await signUp(auth);
    const counter = await startCounter(() => auth);
    counter.away = true;
    const gatehouse = await startApp({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: auth.origin,
      JWKS_URL: counter.url,
    });
    try {
      const { status, headers, body } = await gatehouse.call('/api/v1/auth/me', {
        token: ada.token,
      });
      expect([status, body.code]).toEqual([503, 'SERVICE_UNAVAILABLE']);
      expect(headers.get('retry-after')).toMatch(/^\d+$/);
      await gatehouse.http.get('/health/ready').expect(503);
      await sleep(3000);
      counter.away = false;
      // Promised within a second; the rest is for a machine that is busy with something else.
      expect(await eventually(() => me(gatehouse, ada.token), 200)).toBeLessThan(3000);
      await gatehouse.http.get('/health/ready').expect(200);
    } finally {
      await gatehouse.close();
      counter.close();
      await auth.stop();
    }
  });

  it('later: known keys verify on, and health names it', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url });
    const gatehouse = await startApp({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: auth.origin,
      JWKS_REFRESH_SECONDS: '1',
    });
    try {
      const ada = await signUp(auth);
      expect(await me(gatehouse, ada.token)).toBe(200);
      await auth.kill();
      await eventually(
        async () => (await gatehouse.http.get('/health/ready')).body.status,
        'degraded',
      );
      expect(await me(gatehouse, ada.token)).toBe(200);
      await gatehouse.http.get('/health/ready').expect(200);
    } finally {
      await gatehouse.close();
    }
  });
});

/** `FLOOD_PER_SECOND=1000 FLOOD_SECONDS=20` is the flood that the promise was measured with. */
const FLOOD_PER_SECOND = Number(process.env['FLOOD_PER_SECOND'] ?? 200);
const FLOOD_SECONDS = Number(process.env['FLOOD_SECONDS'] ?? 8);
const COOLDOWN_SECONDS = 5;

it(
  'a flood of made-up key ids costs the issuer one fetch a cool-down and honest users nothing',
  async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url });
    const counter = await startCounter(() => auth);
    const gatehouse = await startApp({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: auth.origin,
      JWKS_URL: counter.url,
      JWKS_COOLDOWN_SECONDS: String(COOLDOWN_SECONDS),
      LOG_LEVEL: 'error',
    });
    const agent = new Agent({ keepAlive: true, maxSockets: 64 });
    const ask = (token: string) => statusOf(agent, `${gatehouse.url}/api/v1/auth/me`, token);
    try {
      const ada = await signUp(auth);
      expect(await ask(ada.token)).toBe(200);
      const before = counter.fetches;
      const began = performance.now();
      const since = () => performance.now() - began;

      const forged: Promise<number>[] = [];
      const honest: Promise<number>[] = [];
      let rotation: Promise<number> | undefined;
      for (let tick = 0; tick < FLOOD_SECONDS * 20; tick += 1) {
        for (let i = 0; i < FLOOD_PER_SECOND / 20; i += 1) forged.push(ask(forgedFrom(ada.token)));
        honest.push(ask(ada.token));
        if (tick === FLOOD_SECONDS * 4) {
          // In the midst of it Better-Auth begins to sign with another key.
          await database.sql(`update jwks set "expiresAt" = now()`);
          const next = await auth.tokenFor(ada.session);
          expect(keyOf(next)).not.toBe(keyOf(ada.token));
          rotation = eventually(() => ask(next), 200);
        }
        await sleep(Math.max(0, (tick + 1) * 50 - since()));
      }
      const accepted = await rotation;
      const statuses = [new Set(await Promise.all(forged)), new Set(await Promise.all(honest))];

      expect(statuses).toEqual([new Set([401]), new Set([200])]);
      expect(counter.fetches - before).toBeLessThanOrEqual(1 + since() / 1000 / COOLDOWN_SECONDS);
      expect(accepted).toBeLessThan((COOLDOWN_SECONDS + 2) * 1000);
      process.stdout.write(
        `flood: ${forged.length} forged in ${(since() / 1000).toFixed(1)} s, ${counter.fetches - before} fetches, ${honest.length} honest all 200, new key after ${Math.round(accepted ?? 0)} ms\n`,
      );
    } finally {
      agent.destroy();
      await gatehouse.close();
      counter.close();
      await auth.stop();
    }
  },
  60_000 + FLOOD_SECONDS * 5000,
);

function forgedFrom(token: string): string {
  const [, payload, signature] = token.split('.');
  const header = { alg: 'EdDSA', kid: randomBytes(12).toString('hex') };
  return `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${payload}.${signature}`;
}

/** Cheaper than `fetch`, so that the load does not slow down what it is to show. */
function statusOf(agent: Agent, url: string, token: string): Promise<number> {
  return new Promise((resolve, reject) => {
    get(url, { agent, headers: { authorization: `Bearer ${token}` } }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode ?? 0));
    }).on('error', reject);
  });
}
