import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { findFreePort } from '../../tools/ports.ts';
import { answerTo, bodyFor, type Call, call } from './calls.ts';
import { load, OTHER_CORES, pin, SERVER_CORES } from './load.ts';
import type { LoadOrder, LoadReport } from './load-generator.ts';
import { printRows, type Row } from './row.ts';
import { type BenchUser, withWorld, type World } from './world.ts';

const CONNECTIONS = 32;
const WARM_USERS = 100;
const ME = '/api/v1/auth/me';

export interface Effort {
  rounds: number;
  seconds: number;
  /** How many tokens that nobody has seen, in each round. */
  fresh: number;
}

export const FULL: Effort = { rounds: 5, seconds: 5, fresh: 20_000 };
export const QUICK: Effort = { rounds: 3, seconds: 2, fresh: 6_000 };

interface Contestant {
  name: string;
  pid: number | undefined;
  order: () => Promise<LoadOrder> | LoadOrder;
  reports: Effortful[];
}

/** With what it cost the server: the time on a core for one request, whoever else was on it. */
type Effortful = LoadReport & { microseconds: number };

/** `GET /auth/me` beside the barest servers there are, and beside Better-Auth's own answer to "who is it?" */
export async function benchHotPath({ rounds, seconds, fresh }: Effort): Promise<Row[]> {
  return withWorld(1000, async (world) => {
    const bare: ChildProcess[] = [];
    try {
      const gatehouse = await world.serve();
      const warm = await warmCalls(world, gatehouse.url);
      const [first] = warm;
      const startBare = async (kind: 'express' | 'http') => {
        const port = await findFreePort();
        const child = await startBareServer(kind, port, first?.body ?? '');
        bare.push(child);
        return { pid: child.pid, port, calls: [call(ME, undefined, first?.body ?? '')] };
      };
      const http = await startBare('http');
      const express = await startBare('express');
      const gatehousePort = gatehouse.port;
      const sessions = await sessionCalls(world);
      const timed = { connections: CONNECTIONS, seconds };
      const contestants: Contestant[] = [
        { name: 'http', pid: http.pid, order: () => ({ ...timed, ...http }), reports: [] },
        { name: 'express', pid: express.pid, order: () => ({ ...timed, ...express }), reports: [] },
        {
          name: 'warm',
          pid: gatehouse.child.pid,
          order: () => ({ ...timed, port: gatehousePort, calls: warm }),
          reports: [],
        },
        {
          name: 'fresh',
          pid: gatehouse.child.pid,
          order: () => ({
            connections: CONNECTIONS,
            seconds: 60,
            once: true,
            port: gatehousePort,
            calls: freshCalls(world, warm, fresh),
          }),
          reports: [],
        },
        {
          name: 'session',
          pid: world.auth.pid,
          order: () => ({ ...timed, port: world.auth.port, calls: sessions }),
          reports: [],
        },
      ];
      for (let round = 0; round < rounds; round += 1) {
        for (const contestant of contestants) {
          const order = await contestant.order();
          const before = cpuSeconds(contestant.pid);
          const report = await load(order);
          const spent = cpuSeconds(contestant.pid) - before;
          const answers = report.perSecond * report.seconds;
          contestant.reports.push({ ...report, microseconds: (spent * 1e6) / answers });
        }
      }
      return rowsOf(
        Object.fromEntries(contestants.map(({ name, reports }) => [name, median(reports)])),
      );
    } finally {
      for (const child of bare) child.kill();
    }
  });
}

function rowsOf(of: Record<string, Effortful>): Row[] {
  const us = (name: string) => Math.round(of[name]?.microseconds ?? NaN);
  const speed = (name: string) => of[name]?.perSecond ?? NaN;
  const row = (what: string, mine: string, theirs: string, least: number): Row => {
    const ratio = speed(mine) / speed(theirs);
    return {
      what,
      figure: `${thousands(speed(mine))} to ${thousands(speed(theirs))} a second; ${us(mine)} to ${us(theirs)} µs of a core; p99 ${of[mine]?.p99.toFixed(1)} to ${of[theirs]?.p99.toFixed(1)} ms`,
      ratio,
      wanted: `>= ${least}`,
      met: ratio >= least,
    };
  };
  return [
    row('auth/me, warm: to a bare Express handler', 'warm', 'express', 0.35),
    { ...row('auth/me, warm: to a bare node:http server', 'warm', 'http', 0), wanted: '-' },
    row("auth/me, warm: to Better-Auth's get-session", 'warm', 'session', 20),
    row("auth/me, a new token each time: to Better-Auth's get-session", 'fresh', 'session', 3),
  ];
}

const thousands = (figure: number) => Math.round(figure).toLocaleString('en');

/** By speed, the round in the middle. */
function median(reports: Effortful[]): Effortful {
  const sorted = reports.toSorted((a, b) => a.perSecond - b.perSecond);
  return sorted[Math.floor(sorted.length / 2)] as Effortful;
}

/** In ticks of a hundredth of a second, as Linux counts them; elsewhere there is no such figure. */
function cpuSeconds(pid: number | undefined): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return NaN;
  }
}

async function warmCalls(world: World, url: string): Promise<Call[]> {
  const calls: Call[] = [];
  for (const user of world.users.slice(0, WARM_USERS)) {
    const token = world.token(user);
    const body = await answerTo(url + ME, token);
    if (!body.includes(`"${user.id}"`)) throw new Error(`It took ${user.id} for somebody else.`);
    calls.push(call(ME, token, body));
  }
  return calls;
}

function freshCalls({ users, token }: World, [first]: Call[], count: number): Call[] {
  const bodies = users.map((user) => bodyFor(user, first?.body ?? ''));
  return Array.from({ length: count }, (_, index) => {
    const user = users[index % users.length] as BenchUser;
    return call(ME, token(user), bodies[index % users.length] ?? '');
  });
}

async function sessionCalls({ users, auth }: World): Promise<Call[]> {
  const path = '/api/auth/get-session';
  const calls: Call[] = [];
  for (const { session } of users.slice(0, WARM_USERS)) {
    calls.push(call(path, session, await answerTo(auth.url + path, session)));
  }
  return calls;
}

async function startBareServer(
  kind: 'express' | 'http',
  port: number,
  json: string,
): Promise<ChildProcess> {
  const program = fileURLToPath(new URL('./bare-servers.ts', import.meta.url));
  const child = spawn(process.execPath, [program, kind, String(port), json], {
    stdio: 'inherit',
    env: { ...process.env, NODE_ENV: 'production' },
  });
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const answer = await fetch(`http://127.0.0.1:${port}${ME}`).catch(() => undefined);
    if (answer?.ok) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await pin(child.pid, SERVER_CORES);
  return child;
}

if (import.meta.main) {
  await pin(process.pid, OTHER_CORES);
  printRows(await benchHotPath(process.argv.includes('--quick') ? QUICK : FULL));
}
