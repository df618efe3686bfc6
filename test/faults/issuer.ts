import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault.ts';
import type { Answer } from './http-client.ts';
import type { Stage } from './stage.ts';

/** No answer depends on the issuer as long as its keys are at hand. */
const ALWAYS = { answers: [200] };
const SOON = { JWKS_REFRESH_SECONDS: '1' };

async function expectDegraded(stage: Stage): Promise<void> {
  const { status, body } = await stage.ask('/health/ready');
  const said = (JSON.parse(body) as { status?: string }).status;
  stage.expect(status === 200, `/health/ready stays 200: ${status}`);
  stage.expect(said === 'degraded', `/health/ready names it: ${said}`);
}

export const issuerDown: Fault = {
  ...ALWAYS,
  name: 'issuer killed (SIGKILL)',
  seconds: 4,
  start: (stage) => stage.serve(SOON),
  inject: ({ system }) => system.auth.kill(),
  expect: expectDegraded,
  restore: ({ system }) => system.auth.restart(),
};

export const issuerStalls: Fault = {
  ...ALWAYS,
  name: 'issuer stopped (SIGSTOP): it accepts and never answers',
  seconds: 5,
  start: (stage) => stage.serve(SOON),
  inject: ({ system }) => void process.kill(system.auth.pid, 'SIGSTOP'),
  expect: async (stage) => {
    await expectDegraded(stage);
    // Whoever comes with a key that nobody has heard of waits for the issuer, but not for ever.
    const token = forgedFrom(stage.system.admin.token);
    const strangers = await Promise.all(
      Array.from({ length: 50 }, () => stage.ask('/api/v1/auth/me', { token })),
    );
    // It may be the issuer's newest: nobody is signed out by an outage.
    expectAll(stage, strangers, 503, 'strangers');
  },
  restore: ({ system }) => void process.kill(system.auth.pid, 'SIGCONT'),
};

export const keysRotate: Fault = {
  ...ALWAYS,
  name: 'issuer rotates its keys, twice',
  seconds: 0,
  start: (stage) => stage.serve(),
  inject: async (stage) => {
    const { system } = stage;
    for (const pauseMs of [5500, 0]) {
      const before = keyOf(system.admin.token);
      await system.sql('update jwks set "expiresAt" = now()');
      const answers: Answer[] = [];
      // Each reader comes with the new key at once, while others come with the old one.
      for (const reader of [system.admin, ...system.readers]) {
        const token = await system.auth.tokenFor(reader.session);
        stage.expect(keyOf(token) !== before, 'the issuer signs with another key');
        answers.push(await stage.ask('/api/v1/auth/me', { token }));
        reader.token = token;
      }
      expectAll(stage, answers, 200, 'the first use of a new key');
      // Longer than the cool-down of JWKS_COOLDOWN_SECONDS: Better-Auth itself never rotates within hours.
      await sleep(pauseMs);
    }
  },
  restore: () => undefined,
};

let counter: { fetches: number; url: string; server: Server };
let flooding = false;
let flood: Promise<void>;
let forged: Answer[] = [];

export const flooded: Fault = {
  ...ALWAYS,
  name: 'flood of made-up key ids',
  seconds: 0,
  start: async (stage) => {
    counter = await startCounter(() => stage.system.auth.url);
    stage.onClose(() => counter.server.closeAllConnections());
    stage.onClose(() => counter.server.close());
    await stage.serve({ JWKS_URL: counter.url });
  },
  inject: async (stage) => {
    const { system, long } = stage;
    const [perSecond, seconds] = long ? [1000, 20] : [300, 8];
    const before = counter.fetches;
    const began = performance.now();
    forged = [];
    flooding = true;
    flood = floodWith(stage, perSecond);
    await sleep((seconds / 4) * 1000);
    // In the midst of it Better-Auth begins to sign with another key.
    await system.sql('update jwks set "expiresAt" = now()');
    const token = await system.auth.tokenFor(system.admin.session);
    const known = await stage.until(
      async () => (await stage.ask('/api/v1/auth/me', { token })).status === 200,
    );
    await sleep(Math.max(0, seconds * 1000 - (performance.now() - began)));
    flooding = false;
    await flood;
    const took = (performance.now() - began) / 1000;
    const fetches = counter.fetches - before;
    stage.note(
      `${forged.length} forged in ${took.toFixed(1)} s, ${fetches} fetches of the key set, a new key known after ${Math.round(known)} ms`,
    );
    stage.expect(forged.length > perSecond, 'it is a flood');
    expectAll(stage, forged, 401, 'forged tokens');
    stage.expect(fetches <= 2 + took / COOLDOWN_SECONDS, `one fetch a cool-down: ${fetches}`);
    stage.expect(known < (COOLDOWN_SECONDS + 2) * 1000, `a new key is known after the cool-down`);
  },
  restore: () => undefined,
};

const COOLDOWN_SECONDS = 5;

async function floodWith(stage: Stage, perSecond: number): Promise<void> {
  const asked: Promise<unknown>[] = [];
  const token = stage.system.admin.token;
  while (flooding) {
    for (let each = 0; each < perSecond / 20; each += 1) {
      const asking = stage.ask('/api/v1/auth/me', { token: forgedFrom(token) });
      asked.push(asking.then((answer) => forged.push(answer)));
    }
    await sleep(50);
  }
  await Promise.all(asked);
}

export function expectAll(stage: Stage, answers: Answer[], status: number, whose: string): void {
  const others = answers.filter((answer) => answer.status !== status);
  stage.expect(
    others.length === 0,
    `${whose}: ${status}, not ${others[0]?.status} ${others[0]?.body}`,
  );
  const slowest = Math.max(...answers.map(({ ms }) => ms));
  stage.expect(slowest < 5000, `${whose}: answered in time, not after ${Math.round(slowest)} ms`);
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

/** Stands before the issuer's key set and counts. */
async function startCounter(issuer: () => string) {
  const server = createServer((_request, response) => {
    counter.fetches += 1;
    void fetch(`${issuer()}/api/auth/jwks`)
      .then((answer) => answer.text())
      .then((body) => response.setHeader('content-type', 'application/json').end(body));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { fetches: 0, url: `http://127.0.0.1:${port}/jwks`, server };
}
