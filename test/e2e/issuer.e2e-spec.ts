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

const meStatus = async (gatehouse: RunningApp, token: string) =>
  (await gatehouse.call('/api/v1/auth/me', { token })).status;

const keyIdOf = (token: string) =>
  (JSON.parse(Buffer.from(token.split('.', 1)[0] ?? '', 'base64url').toString()) as { kid: string })
    .kid;

/** Repeats `probe` until it returns `expected`. */
async function eventually<Value>(probe: () => Promise<Value>, expected: Value, seconds = 10) {
  const start = performance.now();
  let value = await probe();
  while (value !== expected && performance.now() - start < seconds * 1000) {
    await sleep(50);
    value = await probe();
  }
  expect(value).toEqual(expected);
}

/** Starts a proxy for the issuer's key set that counts fetches and can be made unavailable. */
async function startKeySetProxy(auth: () => BetterAuth) {
  const proxy = { fetches: 0, isDown: false, url: '', close: () => undefined as void };
  const server: Server = createServer((_request, response) => {
    proxy.fetches += 1;
    if (proxy.isDown) return void response.destroy();
    void fetch(`${auth().url}/api/auth/jwks`)
      .then((answer) => answer.text())
      .then((body) => response.setHeader('content-type', 'application/json').end(body));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  proxy.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`;
  proxy.close = () => {
    server.closeAllConnections();
    server.close();
  };
  return proxy;
}

describe('key rotation by Better-Auth', () => {
  it('accepts a new key at its first use, and the old key while it is published', async () => {
    const auth = await startBetterAuth({
      databaseUrl: database.url,
      rotationInterval: 2,
      gracePeriod: 3600,
    });
    const gatehouse = await startApp({ DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin });
    try {
      const ada = await signUp(auth);
      expect(await meStatus(gatehouse, ada.token)).toBe(200);
      await sleep(2500);
      const next = await auth.tokenFor(ada.session);
      expect(keyIdOf(next)).not.toBe(keyIdOf(ada.token));
      expect(await meStatus(gatehouse, next)).toBe(200);
      expect(await meStatus(gatehouse, ada.token)).toBe(200);
    } finally {
      await gatehouse.close();
      await auth.stop();
    }
  });

  it('refuses a key that was removed from the key set after the next refresh', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url });
    const gatehouse = await startApp({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: auth.origin,
      JWKS_REFRESH_SECONDS: '1',
    });
    try {
      const ada = await signUp(auth);
      expect(await meStatus(gatehouse, ada.token)).toBe(200);
      await database.sql('delete from jwks');
      const next = await auth.tokenFor(ada.session);
      await eventually(() => meStatus(gatehouse, ada.token), 401);
      expect(await meStatus(gatehouse, next)).toBe(200);
    } finally {
      await gatehouse.close();
      await auth.stop();
    }
  });
});

describe('unreachable issuer', () => {
  it('returns 503 and not 401 before the first key set, and 200 soon after the issuer is back', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url });
    const ada = await signUp(auth);
    const proxy = await startKeySetProxy(() => auth);
    proxy.isDown = true;
    const gatehouse = await startApp({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: auth.origin,
      JWKS_URL: proxy.url,
    });
    try {
      const { status, headers, body } = await gatehouse.call('/api/v1/auth/me', {
        token: ada.token,
      });
      expect([status, body.code]).toEqual([503, 'SERVICE_UNAVAILABLE']);
      expect(headers.get('retry-after')).toMatch(/^\d+$/);
      await gatehouse.http.get('/health/ready').expect(503);
      await sleep(3000);
      proxy.isDown = false;
      await eventually(() => meStatus(gatehouse, ada.token), 200);
      await gatehouse.http.get('/health/ready').expect(200);
    } finally {
      await gatehouse.close();
      proxy.close();
      await auth.stop();
    }
  });

  it('verifies tokens with cached keys when the issuer goes down, and reports degraded health', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url });
    const gatehouse = await startApp({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: auth.origin,
      JWKS_REFRESH_SECONDS: '1',
    });
    try {
      const ada = await signUp(auth);
      expect(await meStatus(gatehouse, ada.token)).toBe(200);
      await auth.kill();
      await eventually(
        async () => (await gatehouse.http.get('/health/ready')).body.status,
        'degraded',
      );
      expect(await meStatus(gatehouse, ada.token)).toBe(200);
      await gatehouse.http.get('/health/ready').expect(200);
    } finally {
      await gatehouse.close();
    }
  });
});

describe('two applications in one process', () => {
  it('accepts only the tokens of its own issuer in each application', async () => {
    const other = await createDatabase();
    const issuers = await Promise.all(
      [database, other].map(({ url }) => startBetterAuth({ databaseUrl: url })),
    );
    const applications: RunningApp[] = [];
    try {
      for (const [index, { url }] of [database, other].entries()) {
        const origin = issuers[index]?.origin ?? '';
        applications.push(await startApp({ DATABASE_URL: url, BETTER_AUTH_URL: origin }));
      }
      const users = await Promise.all(issuers.map((issuer) => signUp(issuer)));
      // The second round answers from the caches.
      for (let round = 0; round < 2; round += 1) {
        const statuses = await Promise.all(
          applications.map((application) =>
            Promise.all(users.map(({ token }) => meStatus(application, token))),
          ),
        );
        expect(statuses).toEqual([
          [200, 401],
          [401, 200],
        ]);
      }
    } finally {
      await Promise.all(applications.map((application) => application.close()));
      await Promise.all(issuers.map((issuer) => issuer.stop()));
      await other.drop();
    }
  });
});
