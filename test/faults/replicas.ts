import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBalancer } from './balancer.ts';
import type { AppProcess } from '../support/app-process.ts';
import { findProgram } from '../support/daemon.ts';
import type { Fault } from './fault.ts';
import { startHaProxy } from './haproxy.ts';
import { HttpClient } from './http-client.ts';
import { only, count, newTally, statusesOf } from './load.ts';
import type { Stage } from './stage.ts';

let other = newTally();
let asking: Promise<void>;

export const replicaKilled: Fault = {
  name: 'one of two replicas killed (SIGKILL)',
  // Clients of the one that is gone find nobody there; nobody is told anything untrue.
  answers: [200, 0],
  answersAfter: [200, 0],
  seconds: 2,
  start: async (stage) => {
    await stage.serve();
    await stage.serve();
  },
  inject: async (stage) => {
    const [first, second] = stage.services as [AppProcess, AppProcess];
    stage.ended.add(first);
    await first.end('SIGKILL');
    other = newTally();
    asking = (async () => {
      for (let turn = 0; turn < 100; turn += 1) {
        const { token } = stage.system.admin;
        count(other, await stage.ask('/api/v1/auth/me', { token }, second));
        await sleep(10);
      }
    })();
  },
  expect: async (stage) => {
    await asking;
    stage.expect(only(other, [200]), `clients of the other see nothing: ${statusesOf(other)}`);
  },
  restore: async (stage) => {
    const [first] = stage.services as [AppProcess, AppProcess];
    const again = await stage.serve({}, first.port);
    // `serve` has put it last.
    stage.services.splice(0, 1, again);
    stage.services.pop();
  },
};

const CONNECTIONS = 64;
export const rollingRestart: Fault = {
  name: 'rolling restart of two replicas behind a load balancer',
  answers: [200],
  // The load takes all of the machine: a change that waits a second for another is given up.
  writes: [200, 503],
  seconds: 0,
  start: async (stage) => {
    const one = await stage.serve();
    const two = await stage.serve();
    const ports = [one.port, two.port];
    if (findProgram('haproxy')) {
      const haproxy = await startHaProxy(join(stage.system.folder, 'haproxy'), ports);
      stage.onClose(() => haproxy.kill());
      stage.front = [haproxy.url];
      sendsTo = (replica) => haproxy.sendsTo(replica);
    } else {
      stage.note('haproxy is not installed: a plain balancer of our own stands in for it');
      const urls = [one.url, two.url];
      const balancer = await startBalancer(urls, 500);
      stage.onClose(() => balancer.close());
      stage.front = [balancer.url];
      sendsTo = (replica) => balancer.sendsTo(urls[replica] ?? '');
    }
    await stage.until(async () => (await sendsTo(0)) && (await sendsTo(1)));
  },
  inject: async (stage) => {
    const wanted = stage.long ? 50_000 : 8000;
    const busy = startBusy(stage);
    const exits: string[] = [];
    for (let replica = 0; replica < 2 || busy.tally.requests < wanted; replica += 1) {
      const number = replica % 2;
      exits.push(await restartReplica(stage, number));
      // A run that is slow ends, too.
      if (replica > 100) break;
    }
    const { tally } = busy;
    await busy.stop();
    stage.note(
      `${tally.requests} requests on ${CONNECTIONS} connections: ${statusesOf(tally)}; exits after ${exits.join(', ')}`,
    );
    stage.expect(only(tally, [200]), `no request is lost: ${statusesOf(tally)}`);
    stage.expect(tally.requests >= wanted, `${wanted} requests: ${tally.requests}`);
  },
  restore: () => undefined,
};

let sendsTo: (replica: number) => Promise<boolean> | boolean;

async function restartReplica(stage: Stage, number: number): Promise<string> {
  const old = stage.services[number];
  if (!old) throw new Error('There is no such replica.');
  await sleep(500);
  stage.ended.add(old);
  const { code, ms } = await old.end('SIGTERM');
  stage.expect(code === 0, `it exits with 0: ${code}`);
  stage.expect(ms < 10_000, `it exits within ten seconds: ${Math.round(ms)} ms`);
  const next = await stage.serve({}, old.port);
  stage.services.pop();
  stage.services[number] = next;
  const seen = await stage.until(() => sendsTo(number));
  stage.expect(Number.isFinite(seen), 'the balancer sends requests to it again');
  return `${Math.round(ms)} ms`;
}

/** As much as goes through so many connections. */
function startBusy(stage: Stage) {
  const client = new HttpClient({ connections: CONNECTIONS });
  const tally = newTally();
  const url = stage.front?.[0] ?? '';
  const { readers } = stage.system;
  let stopped = false;
  const workers = Array.from({ length: CONNECTIONS }, async (_, worker) => {
    const token = readers[worker % readers.length]?.token ?? '';
    while (!stopped) count(tally, await client.ask(`${url}/api/v1/auth/me`, { token }));
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
