import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { type RunningApp, startApp } from '../support/test-app.js';
import { signUp } from '../support/users.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

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
