import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { KeyRing, type KeyRingOptions } from '../../src/auth/key-ring.js';
import { digestOf } from '../../src/auth/bearer.js';
import { KeysUnavailableError, TokenVerifier } from '../../src/auth/token-verifier.js';
import {
  build,
  ISSUER,
  JWKS,
  kidOf,
  LEEWAY,
  MAX_LIFETIME,
  NAMES,
  NOW,
} from '../support/token-cases.js';

const [ED25519, ES256, ES512, RS256, PS256] = JWKS;
const SPARE = { ...ED25519, kid: 'spare' };
const HOUR = 3_600_000;

describe('KeyRing', () => {
  it('has all six keys of a set after its start', async () => {
    const issuer = await startIssuer([ED25519, ES256, ES512, RS256, PS256, SPARE]);
    const { ring } = ringFor(issuer);

    await ring.start();

    expect(ring.status()).toEqual({
      state: 'ready',
      keys: 6,
      lastSuccessAt: expect.any(Date),
      lastError: null,
    });
    expect(ring.get('spare')?.algorithm).toBe('EdDSA');
    expect(issuer.hits()).toBe(1);
  });

  it('fetches the keys at the first lookup if it was not started', async () => {
    const issuer = await startIssuer([ED25519]);

    const key = await ringFor(issuer).ring.resolve(kidOf('EdDSA'));

    expect(key?.algorithm).toBe('EdDSA');
  });

  it('makes lookups during the first fetch wait for it', async () => {
    const issuer = await startIssuer([ED25519]);
    issuer.answer(async (response) => {
      await sleep(100);
      send(response, JSON.stringify({ keys: [ED25519] }));
    });
    const { ring } = ringFor(issuer);
    void ring.start();

    const found = await Promise.all(Array.from({ length: 50 }, () => ring.resolve(kidOf('EdDSA'))));

    expect(found.every((key) => key !== undefined)).toBe(true);
    expect(issuer.hits()).toBe(1);
  });

  it.each(['http://issuer.example.com/jwks', 'http://10.0.0.1/jwks', 'ftp://localhost/jwks'])(
    'refuses to fetch keys from %s',
    (url) => {
      expect(() => new KeyRing({ ...OPTIONS, url }, silent())).toThrow('https');
    },
  );

  it.each(['https://issuer.example.com/jwks', 'http://localhost:1/jwks', 'http://[::1]:1/jwks'])(
    'accepts the key set URL %s',
    (url) => {
      expect(() => new KeyRing({ ...OPTIONS, url }, silent())).not.toThrow();
    },
  );

  it('has at most one fetch in flight', async () => {
    const issuer = await startIssuer([ED25519]);
    const { ring } = ringFor(issuer, { refreshSeconds: 0.05, cooldownSeconds: 0 });
    await Promise.all([ring.start(), ring.start()]);
    expect(issuer.hits()).toBe(1);

    issuer.answer(() => undefined);
    void ring.resolve('unknown');
    await sleep(300);

    expect(issuer.hits()).toBe(2);
  });

  describe('bad response of the issuer', () => {
    const good = JSON.stringify({ keys: [SPARE] });
    const broken: [string, Answer, RegExp][] = [
      ['500, with a good set', (response) => send(response, good, 500), /responded with 500/],
      ['404', (response) => send(response, 'Not Found', 404), /responded with 404/],
      ['204', (response) => response.writeHead(204).end(), /responded with 204/],
      ['a redirect to a good set', redirect, /responded with 302/],
      ['HTML', (response) => send(response, '<!doctype html><p>Sign in'), /not JSON/],
      ['an empty body', (response) => send(response, ''), /not JSON/],
      ['half a set', (response) => send(response, good.slice(0, -5)), /not JSON/],
      ['bytes that are not UTF-8', (response) => send(response, Buffer.from([0xff])), /not JSON/],
      ['null', (response) => send(response, 'null'), /not a key set/],
      ['{}', (response) => send(response, '{}'), /not a key set/],
      ['a bare list', (response) => send(response, JSON.stringify([SPARE])), /not a key set/],
      ['keys that are no list', (response) => send(response, '{"keys":{}}'), /not a key set/],
      ['no keys', (response) => send(response, '{"keys":[]}'), /empty/],
      ['1,001 keys', (response) => send(response, keySetOf(1001)), /more than 1000/],
      ['unusable keys only', unfit, /no usable key/],
      ['a closed connection', (response) => response.destroy(), /fetch failed/],
      ['a body that breaks off', breakOff, /terminated|aborted/],
      ['300 MB', flood, /larger than/],
      ['300 MB, announced', announcedFlood, /larger than/],
      ['300 MB in a small gzip', bomb, /larger than/],
      ['no response', () => undefined, /2000 ms/],
      ['headers without a body', (response) => response.writeHead(200).flushHeaders(), /2000 ms/],
      ['a body that stalls', stall, /2000 ms/],
      ['a byte every 50 ms', drip, /2000 ms/],
    ];

    it.each(broken)(
      'keeps its valid keys, or reports that it has none, after %s',
      async (_, answer, error) => {
        const issuer = await startIssuer([ED25519]);
        const { ring: warm } = ringFor(issuer, { cooldownSeconds: 0 });
        const { ring: cold } = ringFor(issuer);
        await warm.start();
        issuer.answer(answer);
        const started = performance.now();

        // The unknown key may be the issuer's newest.
        const unknown = warm.resolve('unknown').catch((thrown: unknown) => thrown);
        const [answered] = await Promise.all([unknown, cold.start()]);
        expect(answered).toBeInstanceOf(KeysUnavailableError);

        expect(performance.now() - started).toBeLessThan(20_000);
        expect(warm.get(kidOf('EdDSA'))).toMatchObject({ id: kidOf('EdDSA') });
        expect(warm.get('spare')).toBeUndefined();
        expect(warm.status()).toMatchObject({
          state: 'degraded',
          keys: 1,
          lastError: expect.stringMatching(error),
        });
        expect(cold.status()).toMatchObject({ state: 'unavailable', keys: 0, lastSuccessAt: null });
        expect(issuer.sentBytes()).toBeLessThan(20_000_000);
        expect(issuer.redirected()).toBe(false);
      },
    );
  });

  describe('bad key in the set', () => {
    it('rejects a bad key with one warning, and warns again when it returns', async () => {
      const issuer = await startIssuer([ED25519, { ...ES256, use: 'enc' }]);
      const { ring, warnings } = ringFor(issuer, { cooldownSeconds: 0 });
      await ring.start();
      await ring.resolve('unknown');
      await ring.resolve('unknown');

      expect(ring.status()).toMatchObject({ state: 'ready', keys: 1 });
      expect(warnings()).toEqual([{ kid: kidOf('ES256'), reason: 'its use is not sig' }]);

      issuer.publish([ED25519]);
      await ring.resolve('unknown');
      issuer.publish([ED25519, { ...ES256, use: 'enc' }]);
      await ring.resolve('unknown');

      expect(warnings()).toHaveLength(2);
    });

    it('does not return a rejected key', async () => {
      const issuer = await startIssuer([ED25519, { ...ES256, d: 'AQAB' }]);
      const { ring } = ringFor(issuer);
      await ring.start();

      await expect(ring.resolve(kidOf('ES256'))).resolves.toBeUndefined();
    });
  });

  describe('key rotation', () => {
    it('finds a new key at its first use', async () => {
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer);
      await ring.start();

      issuer.publish([ED25519, SPARE]);

      expect((await ring.resolve('spare'))?.id).toBe('spare');
      expect(issuer.hits()).toBe(2);
    });

    it('finds a new key at its first use during a refresh that started before it was published', async () => {
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer, { refreshSeconds: 0.05 });
      await ring.start();
      const pending: ServerResponse[] = [];
      issuer.answer((response) => pending.push(response));
      await until(() => pending.length === 1);

      issuer.publish([ED25519, SPARE]);
      const finding = ring.resolve('spare');
      publishing([ED25519])(pending[0] as ServerResponse);

      expect((await finding)?.id).toBe('spare');
    });

    it('drops a removed key and adds a new key at the next refresh', async () => {
      const issuer = await startIssuer([ED25519, ES256]);
      const { ring } = ringFor(issuer, { refreshSeconds: 0.05 });
      await ring.start();

      issuer.publish([ED25519, SPARE]);
      await until(() => ring.get('spare') !== undefined);

      expect(ring.get(kidOf('ES256'))).toBeUndefined();
    });

    it('keeps an unchanged key as the same object', async () => {
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer, { cooldownSeconds: 0 });
      await ring.start();
      const key = ring.get(kidOf('EdDSA'));

      issuer.publish([ED25519, SPARE]);
      await ring.resolve('spare');

      expect(ring.get(kidOf('EdDSA'))).toBe(key);
    });

    it.each([
      ['of another algorithm', ES256],
      ['of the same algorithm', generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })],
    ])('replaces a key when a key %s takes over its kid', async (_, successor) => {
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer, { cooldownSeconds: 0 });
      await ring.start();
      const verifier = verifierFor(ring);
      const token = build({});
      await verifier.verify(token);

      issuer.publish([{ ...successor, kid: kidOf('EdDSA') }]);
      await ring.resolve('unknown');

      expect(verifier.getCached(digestOf(token))).toBeUndefined();
      await expect(verifier.verify(token)).rejects.toMatchObject({ failure: 'invalid' });
    });

    it('invalidates the cached tokens of a removed key', async () => {
      const issuer = await startIssuer([ED25519, ES256]);
      const { ring } = ringFor(issuer, { cooldownSeconds: 0 });
      await ring.start();
      const verifier = verifierFor(ring);
      const [gone, kept] = [build({ from: 'ES256' }), build({})];
      await verifier.verify(gone);
      await verifier.verify(kept);

      issuer.publish([ED25519]);
      await ring.resolve('unknown');

      expect(verifier.getCached(digestOf(kept))).toMatchObject({ keyId: kidOf('EdDSA') });
      expect(verifier.getCached(digestOf(gone))).toBeUndefined();
      await expect(verifier.verify(gone)).rejects.toMatchObject({ failure: 'invalid' });
    });
  });

  describe('flood of invented kids', () => {
    it('fetches once per cooldown and still verifies with known keys', async () => {
      let now = 0;
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer, {}, () => now);
      await ring.start();
      const verifier = verifierFor(ring);
      const token = build({});

      for (const second of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) {
        now = second * 1000;
        const found = await Promise.all(made(200, second).map((kid) => ring.resolve(kid)));
        expect(found.every((key) => key === undefined)).toBe(true);
        await expect(verifier.verify(token)).resolves.toMatchObject({ keyId: kidOf('EdDSA') });
      }

      // The one at the start, and those at 0, 5 and 10 seconds.
      expect(issuer.hits()).toBe(4);
    });

    it('refuses an unknown kid immediately during the cooldown and finds a rotated key after it', async () => {
      let now = 0;
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer, {}, () => now);
      await ring.start();
      await ring.resolve('made-up');

      issuer.publish([ED25519, SPARE]);
      now = 4_999;
      await expect(ring.resolve('spare')).resolves.toBeUndefined();
      expect(issuer.hits()).toBe(2);
      now = 5_000;
      await expect(ring.resolve('spare')).resolves.toMatchObject({ id: 'spare' });
    });

    it('lets at most a thousand requests wait for an issuer that does not respond', async () => {
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer);
      await ring.start();
      issuer.answer(() => undefined);
      let answered = 0;
      const waiting = made(1_500, 0).map(async (kid) => {
        await ring.resolve(kid).catch(() => undefined);
        answered += 1;
      });

      await sleep(200);

      expect(answered).toBe(500);
      await Promise.all(waiting);
      expect(issuer.hits()).toBe(2);
    });

    it('fetches at most twice a second while the issuer is unavailable', async () => {
      let now = 0;
      const issuer = await startIssuer([ED25519]);
      issuer.answer((response) => response.destroy());
      const { ring } = ringFor(issuer, {}, () => now);

      for (const tick of [0, 100, 200, 300, 400, 500]) {
        now = tick;
        const found = Promise.all(made(50, tick).map((kid) => ring.resolve(kid)));
        await expect(found).rejects.toThrow(KeysUnavailableError);
      }
      ring.stop();

      expect(issuer.hits()).toBeLessThanOrEqual(4);
    });
  });

  describe('unavailable issuer', () => {
    it('verifies tokens for an hour with cached keys', async () => {
      let now = 0;
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer, {}, () => now);
      await ring.start();
      const verifier = verifierFor(ring, () => NOW * 1000 + now);
      await issuer.leave();

      now = HOUR;
      const token = build({ claims: (good) => ({ ...good, iat: NOW + 3590, exp: NOW + 4490 }) });

      await expect(verifier.verify(token)).resolves.toMatchObject({ subject: 'user-1' });
      const other = build({ header: (good) => ({ ...good, kid: 'unknown' }) });
      await expect(verifier.verify(other)).rejects.toMatchObject({ failure: 'keys-unavailable' });
      expect(ring.status()).toMatchObject({ state: 'degraded', keys: 1 });
    });

    it('stops when the keys are too old and resumes when the issuer is back', async () => {
      let now = 0;
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer, {}, () => now);
      await ring.start();
      const verifier = verifierFor(ring);
      await verifier.verify(build({}));
      await issuer.leave();

      now = 24 * HOUR - 1;
      await expect(verifier.verify(build({}))).resolves.toMatchObject({ keyId: kidOf('EdDSA') });
      now = 24 * HOUR;
      expect(verifier.getCached(digestOf(build({})))).toBeUndefined();
      await expect(verifier.verify(build({}))).rejects.toMatchObject({
        failure: 'keys-unavailable',
      });
      expect(ring.status()).toMatchObject({ state: 'unavailable', keys: 0 });

      await issuer.comeBack();
      now += 500;
      await expect(verifier.verify(build({}))).resolves.toMatchObject({ keyId: kidOf('EdDSA') });
      expect(ring.status().state).toBe('ready');
    });

    it('calls no token invalid after a cold start, and recovers within a second', async () => {
      const issuer = await startIssuer([ED25519]);
      await issuer.leave();
      const { ring, messages } = ringFor(issuer);
      const verifier = verifierFor(ring);
      await ring.start();

      const unknown = build({ header: (good) => ({ ...good, kid: 'unknown' }) });
      await expect(verifier.verify(build({}))).rejects.toMatchObject({
        failure: 'keys-unavailable',
      });
      await expect(verifier.verify(unknown)).rejects.toMatchObject({ failure: 'keys-unavailable' });
      // Long enough for the backoff to reach its maximum.
      await sleep(2_000);

      await issuer.comeBack();
      // Without any lookup, because an instance gets no requests until it is ready.
      await until(() => ring.status().state === 'ready');

      await expect(verifier.verify(build({}))).resolves.toMatchObject({ keyId: kidOf('EdDSA') });
      expect(messages().filter((message) => message.includes('could not be'))).toHaveLength(1);
    });

    it('retries a failed fetch before the next refresh', async () => {
      const issuer = await startIssuer([ED25519]);
      const { ring } = ringFor(issuer);
      await ring.start();
      issuer.answer((response) => send(response, '', 500));
      await expect(ring.resolve('unknown')).rejects.toThrow(KeysUnavailableError);
      expect(ring.status().state).toBe('degraded');

      issuer.publish([ED25519]);
      await until(() => ring.status().state === 'ready');

      expect(issuer.hits()).toBe(3);
    });
  });

  it('stops refreshing and aborts the fetch in flight when it is stopped', async () => {
    const issuer = await startIssuer([ED25519]);
    const { ring, messages } = ringFor(issuer, { refreshSeconds: 0.05, cooldownSeconds: 0 });
    await ring.start();
    issuer.answer(() => undefined);
    const lookup = ring.resolve('unknown');
    await until(() => issuer.hits() === 2);

    ring.stop();
    await lookup;

    await sleep(200);
    await ring.resolve('unknown');
    expect(issuer.hits()).toBe(2);
    expect(messages().filter((message) => message.includes('could not be'))).toEqual([]);
  });
});

const OPTIONS: Omit<KeyRingOptions, 'url'> = {
  cooldownSeconds: 5,
  refreshSeconds: 300,
  maxStaleSeconds: 86_400,
  algorithms: NAMES,
};

type Answer = (response: ServerResponse) => unknown;

interface Issuer {
  url: string;
  hits(): number;
  sentBytes(): number;
  redirected(): boolean;
  publish(keys: readonly unknown[]): void;
  answer(answer: Answer): void;
  leave(): Promise<void>;
  comeBack(): Promise<void>;
}

const servers: Server[] = [];
const rings: KeyRing[] = [];

afterEach(async () => {
  for (const ring of rings.splice(0)) ring.stop();
  await Promise.all(servers.splice(0).map(close));
});

async function startIssuer(keys: readonly unknown[]): Promise<Issuer> {
  let answer: Answer = publishing(keys);
  let hits = 0;
  const sockets: Socket[] = [];
  let redirected = false;
  const server = createServer((request, response) => {
    redirected ||= request.url === '/elsewhere';
    hits += 1;
    void answer(response);
  });
  server.on('connection', (socket) => sockets.push(socket));
  servers.push(server);
  await listen(server, 0);
  const port = portOf(server);
  return {
    url: `http://127.0.0.1:${port}/jwks`,
    hits: () => hits,
    sentBytes: () => sockets.reduce((sum, { bytesWritten }) => sum + bytesWritten, 0),
    redirected: () => redirected,
    publish: (published) => (answer = publishing(published)),
    answer: (other) => (answer = other),
    leave: () => close(server),
    comeBack: () => listen(server, port),
  };
}

function ringFor(
  issuer: Issuer,
  change: Partial<KeyRingOptions> = {},
  clock?: () => number,
): { ring: KeyRing; warnings: () => object[]; messages: () => string[] } {
  const warnings: object[] = [];
  const messages: string[] = [];
  const log = {
    info: () => undefined,
    warn: (details: object, message: string) => {
      messages.push(message);
      if ('kid' in details) warnings.push(details);
    },
  };
  const ring = new KeyRing({ ...OPTIONS, url: issuer.url, ...change }, log, clock);
  rings.push(ring);
  return { ring, warnings: () => warnings, messages: () => messages };
}

function verifierFor(ring: KeyRing, clock = () => NOW * 1000): TokenVerifier {
  const rules = {
    issuer: ISSUER,
    audiences: [ISSUER],
    algorithms: NAMES,
    leewaySeconds: LEEWAY,
    maxLifetimeSeconds: MAX_LIFETIME,
    sessionClaim: 'sid',
  };
  return new TokenVerifier(ring, rules, clock);
}

function silent() {
  return { info: () => undefined, warn: () => undefined };
}

function portOf(server: Server): number {
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('This server has no port.');
  return address.port;
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
}

async function until(condition: () => boolean, forMs = 20_000): Promise<void> {
  const started = performance.now();
  while (!condition()) {
    if (performance.now() - started > forMs)
      throw new Error(`The condition was not met within ${forMs} ms.`);
    await sleep(10);
  }
}

function made(count: number, seed: number): string[] {
  return Array.from({ length: count }, (_, index) => `made-up-${seed}-${index}`);
}

function keySetOf(count: number): string {
  return JSON.stringify({ keys: made(count, 0).map((kid) => ({ ...ED25519, kid })) });
}

function publishing(keys: readonly unknown[]): Answer {
  return (response) => send(response, JSON.stringify({ keys }));
}

function send(response: ServerResponse, body: string | Buffer, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(body);
}

function redirect(response: ServerResponse): void {
  if (response.req.url === '/elsewhere') send(response, JSON.stringify({ keys: [SPARE] }));
  else response.writeHead(302, { location: '/elsewhere' }).end();
}

function unfit(response: ServerResponse): void {
  send(
    response,
    JSON.stringify({
      keys: [
        { ...SPARE, use: 'enc' },
        { kty: 'oct', k: 'AA' },
      ],
    }),
  );
}

function breakOff(response: ServerResponse): void {
  response.writeHead(200, { 'content-length': 1000 });
  response.write('{"keys":[', () => response.destroy());
}

function stall(response: ServerResponse): void {
  response.writeHead(200, { 'content-length': 1000 }).write('{"keys":[');
}

function drip(response: ServerResponse): void {
  response.writeHead(200);
  const dripping = setInterval(() => response.write(' '), 50);
  response.once('close', () => clearInterval(dripping));
}

function flood(response: ServerResponse): void {
  response.writeHead(200);
  pour(response);
}

function announcedFlood(response: ServerResponse): void {
  response.writeHead(200, { 'content-length': 300 << 20 });
  pour(response);
}

function pour(response: ServerResponse): void {
  const megabyte = Buffer.alloc(1 << 20, ' ');
  let left = 300;
  const more = (): void => {
    while (left > 0 && !response.destroyed) {
      left -= 1;
      if (!response.write(megabyte)) return void response.once('drain', more);
    }
    response.end();
  };
  more();
}

const BOMB = gzipSync(Buffer.alloc(30 << 20, ' '));

function bomb(response: ServerResponse): void {
  response.writeHead(200, { 'content-encoding': 'gzip' }).end(BOMB);
}
