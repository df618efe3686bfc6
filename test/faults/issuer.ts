import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault.ts';
import type { Answer } from './http-client.ts';
import type { FaultContext } from './fault-context.ts';

/** Responses do not depend on the issuer while its keys are cached. */
const ALWAYS = { answers: [200] };
const SOON = { JWKS_REFRESH_SECONDS: '1' };

async function expectDegraded(context: FaultContext): Promise<void> {
  const { status, body } = await context.send('/health/ready');
  const code = (JSON.parse(body) as { status?: string }).status;
  context.expect(status === 200, `/health/ready stays 200: ${status}`);
  context.expect(code === 'degraded', `/health/ready reports it: ${code}`);
}

export const issuerDown: Fault = {
  ...ALWAYS,
  name: 'issuer killed (SIGKILL)',
  seconds: 4,
  start: (context) => context.serve(SOON),
  inject: ({ system }) => system.auth.kill(),
  expect: expectDegraded,
  restore: ({ system }) => system.auth.restart(),
};

export const issuerStalls: Fault = {
  ...ALWAYS,
  name: 'issuer stopped (SIGSTOP): it accepts connections and never responds',
  seconds: 5,
  start: (context) => context.serve(SOON),
  inject: ({ system }) => void process.kill(system.auth.pid, 'SIGSTOP'),
  expect: async (context) => {
    await expectDegraded(context);
    // A token with an unknown key waits for the issuer, but only until a timeout.
    const token = forgedFrom(context.system.admin.token);
    const strangers = await Promise.all(
      Array.from({ length: 50 }, () => context.send('/api/v1/auth/me', { token })),
    );
    // It may be the newest key. An outage must not sign users out, so the status is not 401.
    expectAll(context, strangers, 503, 'strangers');
  },
  restore: ({ system }) => void process.kill(system.auth.pid, 'SIGCONT'),
};

export const keysRotate: Fault = {
  ...ALWAYS,
  name: 'issuer rotates its keys, twice',
  seconds: 0,
  start: (context) => context.serve(),
  inject: async (context) => {
    const { system } = context;
    for (const pauseMs of [5500, 0]) {
      const before = keyOf(system.admin.token);
      await system.sql('update jwks set "expiresAt" = now()');
      const answers: Answer[] = [];
      // Each reader uses the new key at once, while others still use the old one.
      for (const reader of [system.admin, ...system.readers]) {
        const token = await system.auth.tokenFor(reader.session);
        context.expect(keyOf(token) !== before, 'the issuer signs with another key');
        answers.push(await context.send('/api/v1/auth/me', { token }));
        reader.token = token;
      }
      expectAll(context, answers, 200, 'the first use of a new key');
      // Longer than JWKS_COOLDOWN_SECONDS. Better-Auth itself rotates keys much less often.
      await sleep(pauseMs);
    }
  },
  restore: () => undefined,
};

let jwksCounter: { fetches: number; url: string; server: Server };
let flooding = false;
let flood: Promise<void>;
let forged: Answer[] = [];

export const flooded: Fault = {
  ...ALWAYS,
  name: 'flood of forged key ids',
  seconds: 0,
  start: async (context) => {
    jwksCounter = await startCounter(() => context.system.auth.url);
    context.onClose(() => jwksCounter.server.closeAllConnections());
    context.onClose(() => jwksCounter.server.close());
    await context.serve({ JWKS_URL: jwksCounter.url });
  },
  inject: async (context) => {
    const { system, long } = context;
    const [perSecond, seconds] = long ? [1000, 20] : [300, 8];
    const before = jwksCounter.fetches;
    const startedAt = performance.now();
    forged = [];
    flooding = true;
    flood = floodWith(context, perSecond);
    await sleep((seconds / 4) * 1000);
    // During the flood Better-Auth starts to sign with another key.
    await system.sql('update jwks set "expiresAt" = now()');
    const token = await system.auth.tokenFor(system.admin.session);
    const known = await context.until(
      async () => (await context.send('/api/v1/auth/me', { token })).status === 200,
    );
    await sleep(Math.max(0, seconds * 1000 - (performance.now() - startedAt)));
    flooding = false;
    await flood;
    const took = (performance.now() - startedAt) / 1000;
    const fetches = jwksCounter.fetches - before;
    context.note(
      `${forged.length} forged in ${took.toFixed(1)} s, ${fetches} fetches of the key set, a new key known after ${Math.round(known)} ms`,
    );
    context.expect(forged.length > perSecond, 'it is a flood');
    expectAll(context, forged, 401, 'forged tokens');
    context.expect(fetches <= 2 + took / COOLDOWN_SECONDS, `one fetch a cool-down: ${fetches}`);
    context.expect(known < (COOLDOWN_SECONDS + 2) * 1000, `a new key is known after the cool-down`);
  },
  restore: () => undefined,
};

const COOLDOWN_SECONDS = 5;

async function floodWith(context: FaultContext, perSecond: number): Promise<void> {
  const pending: Promise<unknown>[] = [];
  const token = context.system.admin.token;
  while (flooding) {
    for (let index = 0; index < perSecond / 20; index += 1) {
      const request = context.send('/api/v1/auth/me', { token: forgedFrom(token) });
      pending.push(request.then((answer) => forged.push(answer)));
    }
    await sleep(50);
  }
  await Promise.all(pending);
}

export function expectAll(
  context: FaultContext,
  answers: Answer[],
  status: number,
  whose: string,
): void {
  const others = answers.filter((answer) => answer.status !== status);
  context.expect(
    others.length === 0,
    `${whose}: ${status}, not ${others[0]?.status} ${others[0]?.body}`,
  );
  const slowest = Math.max(...answers.map(({ ms }) => ms));
  context.expect(slowest < 5000, `${whose}: answered in time, not after ${Math.round(slowest)} ms`);
}

function keyOf(token: string): unknown {
  const header = Buffer.from(token.split('.', 1)[0] ?? '', 'base64url').toString();
  return (JSON.parse(header) as { kid: unknown }).kid;
}

function forgedFrom(token: string): string {
  const [, payload, signature] = token.split('.');
  const header = JSON.stringify({ alg: 'EdDSA', kid: randomBytes(12).toString('hex') });
  return `${Buffer.from(header).toString('base64url')}.${payload}.${signature}`;
}

/** Counts the fetches of the issuer's key set. */
async function startCounter(issuer: () => string) {
  const server = createServer((_request, response) => {
    jwksCounter.fetches += 1;
    void fetch(`${issuer()}/api/auth/jwks`)
      .then((answer) => answer.text())
      .then((body) => response.setHeader('content-type', 'application/json').end(body));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { fetches: 0, url: `http://127.0.0.1:${port}/jwks`, server };
}
