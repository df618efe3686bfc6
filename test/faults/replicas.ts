import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBalancer } from './balancer.ts';
import type { AppProcess } from '../support/app-process.ts';
import { findProgram } from '../support/external-program.ts';
import type { Fault } from './fault.ts';
import { startHaProxy } from './haproxy.ts';
import { HttpClient } from './http-client.ts';
import { only, count, newTally, statusesOf } from './load.ts';
import type { FaultContext } from './fault-context.ts';

let other = newTally();
let asking: Promise<void>;

export const replicaKilled: Fault = {
  name: 'one of two replicas killed (SIGKILL)',
  // Clients of the killed replica get broken connections, but no wrong responses.
  answers: [200, 0],
  answersAfter: [200, 0],
  seconds: 2,
  start: async (context) => {
    await context.serve();
    await context.serve();
  },
  inject: async (context) => {
    const [first, second] = context.services as [AppProcess, AppProcess];
    context.ended.add(first);
    await first.end('SIGKILL');
    other = newTally();
    asking = (async () => {
      for (let turn = 0; turn < 100; turn += 1) {
        const { token } = context.system.admin;
        count(other, await context.send('/api/v1/auth/me', { token }, second));
        await sleep(10);
      }
    })();
  },
  expect: async (context) => {
    await asking;
    context.expect(
      only(other, [200]),
      `clients of the other replica are not affected: ${statusesOf(other)}`,
    );
  },
  restore: async (context) => {
    const [first] = context.services as [AppProcess, AppProcess];
    const again = await context.serve({}, first.port);
    // `serve` appended it to the list.
    context.services.splice(0, 1, again);
    context.services.pop();
  },
};

const CONNECTIONS = 64;
export const rollingRestart: Fault = {
  name: 'rolling restart of two replicas behind a load balancer',
  answers: [200],
  // The load uses the whole machine, so a write can exceed its lock timeout.
  writes: [200, 503],
  seconds: 0,
  start: async (context) => {
    const one = await context.serve();
    const two = await context.serve();
    const ports = [one.port, two.port];
    if (findProgram('haproxy')) {
      const haproxy = await startHaProxy(join(context.system.folder, 'haproxy'), ports);
      context.onClose(() => haproxy.kill());
      context.front = [haproxy.url];
      sendsTo = (replica) => haproxy.sendsTo(replica);
    } else {
      context.note('haproxy is not installed: a simple built-in balancer replaces it');
      const urls = [one.url, two.url];
      const balancer = await startBalancer(urls, 500);
      context.onClose(() => balancer.close());
      context.front = [balancer.url];
      sendsTo = (replica) => balancer.sendsTo(urls[replica] ?? '');
    }
    await context.until(async () => (await sendsTo(0)) && (await sendsTo(1)));
  },
  inject: async (context) => {
    const expected = context.long ? 50_000 : 8000;
    const busy = startBusy(context);
    const exits: string[] = [];
    for (let replica = 0; replica < 2 || busy.tally.requests < expected; replica += 1) {
      const number = replica % 2;
      exits.push(await restartReplica(context, number));
      // A slow run must also end.
      if (replica > 100) break;
    }
    const { tally } = busy;
    await busy.stop();
    context.note(
      `${tally.requests} requests on ${CONNECTIONS} connections: ${statusesOf(tally)}; exits after ${exits.join(', ')}`,
    );
    context.expect(only(tally, [200]), `no request is lost: ${statusesOf(tally)}`);
    context.expect(tally.requests >= expected, `${expected} requests: ${tally.requests}`);
  },
  restore: () => undefined,
};

let sendsTo: (replica: number) => Promise<boolean> | boolean;

async function restartReplica(context: FaultContext, number: number): Promise<string> {
  const old = context.services[number];
  if (!old) throw new Error('There is no such replica.');
  await sleep(500);
  context.ended.add(old);
  const { code, ms } = await old.end('SIGTERM');
  context.expect(code === 0, `it exits with 0: ${code}`);
  context.expect(ms < 10_000, `it exits within ten seconds: ${Math.round(ms)} ms`);
  const next = await context.serve({}, old.port);
  context.services.pop();
  context.services[number] = next;
  const seen = await context.until(() => sendsTo(number));
  context.expect(Number.isFinite(seen), 'the balancer sends requests to it again');
  return `${Math.round(ms)} ms`;
}

/** Sends requests without a pause on all connections. */
function startBusy(context: FaultContext) {
  const client = new HttpClient({ connections: CONNECTIONS });
  const tally = newTally();
  const url = context.front?.[0] ?? '';
  const { readers } = context.system;
  let stopped = false;
  const workers = Array.from({ length: CONNECTIONS }, async (_, worker) => {
    const token = readers[worker % readers.length]?.token ?? '';
    while (!stopped) count(tally, await client.send(`${url}/api/v1/auth/me`, { token }));
  });
  return {
    tally,
    stop: async () => {
      stopped = true;
      await Promise.all(workers);
      client.close();
    },
  };
}
