import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { findFreePort } from '../../tools/ports.ts';
import { answerTo, bodyFor, type Call, call } from './calls.ts';
import { load, OTHER_CORES, pin, SERVER_CORES } from './load.ts';
import type { LoadOrder, LoadReport } from './load-generator.ts';
import { median } from './median.ts';
import { printRows, type Row } from './row.ts';
import { type BenchUser, withBenchEnv, type BenchEnv } from './bench-env.ts';

const CONNECTIONS = 32;
const WARM_USERS = 100;
const ME = '/api/v1/auth/me';

export interface Effort {
  rounds: number;
  seconds: number;
  /** The number of new tokens in each round. */
  fresh: number;
}

/** Many short turns, because the speed of a busy machine changes within seconds. */
export const FULL: Effort = { rounds: 15, seconds: 1.5, fresh: 6_000 };
export const QUICK: Effort = { rounds: 5, seconds: 1, fresh: 3_000 };

interface Candidate {
  name: string;
  pid: number | undefined;
  order: () => Promise<LoadOrder> | LoadOrder;
  reports: CostReport[];
}

/** A report with the CPU time of the server for one request. */
type CostReport = LoadReport & { microseconds: number };

/** Compares `GET /auth/me` with minimal servers and with `get-session` of Better-Auth. */
export async function benchHotPath({ rounds, seconds, fresh }: Effort): Promise<Row[]> {
  return withBenchEnv(1000, async (env) => {
    const bare: ChildProcess[] = [];
    try {
      const gatehouse = await env.serve();
      const warm = await warmCalls(env, gatehouse.url);
      const [first] = warm;
      const startBare = async (kind: BareServer) => {
        const port = await findFreePort();
        const child = await startBareServer(kind, port, first?.body ?? '');
        bare.push(child);
        return { pid: child.pid, port, calls: [call(ME, undefined, first?.body ?? '')] };
      };
      const http = await startBare('http');
      const express = await startBare('express');
      const nest = await startBare('nest');
      const gatehousePort = gatehouse.port;
      const sessions = await sessionCalls(env);
      const timed = { connections: CONNECTIONS, seconds };
      const candidates: Candidate[] = [
        { name: 'http', pid: http.pid, order: () => ({ ...timed, ...http }), reports: [] },
        { name: 'express', pid: express.pid, order: () => ({ ...timed, ...express }), reports: [] },
        { name: 'nest', pid: nest.pid, order: () => ({ ...timed, ...nest }), reports: [] },
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
            calls: freshCalls(env, warm, fresh),
          }),
          reports: [],
        },
        {
          name: 'session',
          pid: env.auth.pid,
          order: () => ({ ...timed, port: env.auth.port, calls: sessions }),
          reports: [],
        },
      ];
      for (let round = 0; round < rounds; round += 1) {
        for (const candidate of candidates) {
          const order = await candidate.order();
          const before = cpuSeconds(candidate.pid);
          const report = await load(order);
          const spent = cpuSeconds(candidate.pid) - before;
          const answers = report.perSecond * report.seconds;
          candidate.reports.push({ ...report, microseconds: (spent * 1e6) / answers });
        }
      }
      return rowsOf(Object.fromEntries(candidates.map(({ name, reports }) => [name, reports])));
    } finally {
      for (const child of bare) child.kill();
    }
  });
}

/** A ratio compares the two turns of one round, which follow each other within seconds. */
function rowsOf(of: Record<string, CostReport[]>): Row[] {
  const values = (name: string, key: 'perSecond' | 'microseconds' | 'p99') =>
    (of[name] ?? []).map((report) => report[key]);
  const figure = (name: string, key: 'perSecond' | 'microseconds' | 'p99') =>
    median(values(name, key));
  const row = (what: string, mine: string, theirs: string, least: number): Row => {
    const others = values(theirs, 'perSecond');
    const ratios = values(mine, 'perSecond').map((speed, round) => speed / (others[round] ?? NaN));
    const ratio = median(ratios);
    const [low, high] = [Math.min(...ratios), Math.max(...ratios)].map((one) => one.toFixed(2));
    return {
      what,
      figure:
        `${thousands(figure(mine, 'perSecond'))} to ${thousands(figure(theirs, 'perSecond'))} a second; ` +
        `${Math.round(figure(mine, 'microseconds'))} to ${Math.round(figure(theirs, 'microseconds'))} µs of a core; ` +
        `p99 ${figure(mine, 'p99').toFixed(1)} to ${figure(theirs, 'p99').toFixed(1)} ms; ratios ${low} to ${high}`,
      ratio,
      wanted: `>= ${least}`,
      met: ratio >= least,
    };
  };
  return [
    row('auth/me, warm: to a bare Express handler', 'warm', 'express', 0.5),
    row('auth/me, warm: to a bare Nest route', 'warm', 'nest', 0.85),
    { ...row('auth/me, warm: to a bare node:http server', 'warm', 'http', 0), wanted: '-' },
    row("auth/me, warm: to Better-Auth's get-session", 'warm', 'session', 20),
    row("auth/me, a new token each time: to Better-Auth's get-session", 'fresh', 'session', 3),
  ];
}

const thousands = (figure: number) => Math.round(figure).toLocaleString('en');

/** Reads the ticks of 10 ms that Linux counts. Returns NaN on other systems. */
function cpuSeconds(pid: number | undefined): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return NaN;
  }
}

export async function warmCalls(env: BenchEnv, url: string, count = WARM_USERS): Promise<Call[]> {
  const calls: Call[] = [];
  for (const user of env.users.slice(0, count)) {
    const token = env.token(user);
    const body = await answerTo(url + ME, token);
    if (!body.includes(`"${user.id}"`)) throw new Error(`It took ${user.id} for somebody else.`);
    calls.push(call(ME, token, body));
  }
  return calls;
}

export function freshCalls({ users, token }: BenchEnv, [first]: Call[], count: number): Call[] {
  const bodies = users.map((user) => bodyFor(user, first?.body ?? ''));
  return Array.from({ length: count }, (_, index) => {
    const user = users[index % users.length] as BenchUser;
    return call(ME, token(user), bodies[index % users.length] ?? '');
  });
}

export async function sessionCalls({ users, auth }: BenchEnv): Promise<Call[]> {
  const path = '/api/auth/get-session';
  const calls: Call[] = [];
  for (const { session } of users.slice(0, WARM_USERS)) {
    calls.push(call(path, session, await answerTo(auth.url + path, session)));
  }
  return calls;
}

type BareServer = 'express' | 'http' | 'nest';

async function startBareServer(
  kind: BareServer,
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
