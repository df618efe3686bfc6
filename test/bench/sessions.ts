import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { devNull, tmpdir } from 'node:os';
import { join } from 'node:path';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { type Postgres, startPostgres } from '../../tools/postgres.ts';
import { type AdminTarget, signUpAdmin, startTarget } from './admin-target.ts';
import { OTHER_CORES, pin } from './load.ts';
import { printRows, type Row } from './row.ts';
import { migrate, withClient } from './seed.ts';
import { measureInTurns, percentile } from './turns.ts';

const SMALL = 1000;
const LARGE = 1_000_000;
/** Sessions from this network, in both databases. */
const NETWORK = { cidr: '203.0.113.0/24', sessions: 100 };
const ENDED_AT_ONCE = 10_000;
const PROBE_INTERVAL_MS = 5;

interface Shape {
  what: string;
  path: string;
  body?: object;
  /** Reads a response, and throws if it is not the expected one: an error would be fast. */
  check: (body: Answer) => boolean;
  noLimitReason?: string;
}

interface Answer {
  items?: unknown[];
  matched?: number;
  matchedIsEstimate?: boolean;
  revoked?: number;
}

const isPage = ({ items }: Answer) => items?.length === 20;
const dryRun = (filter: object) => ({ filter, dryRun: true });

const SHAPES: Shape[] = [
  { what: 'first page', path: 'sessions', check: isPage },
  { what: 'sort=-updatedAt', path: 'sessions?sort=-updatedAt', check: isPage },
  { what: 'sort=expiresAt', path: 'sessions?sort=expiresAt', check: isPage },
  { what: 'state=expired', path: 'sessions?state=expired', check: isPage },
  { what: `ip=${NETWORK.cidr}`, path: `sessions?ip=${NETWORK.cidr}`, check: isPage },
  {
    what: `dry run, ip ${NETWORK.cidr}`,
    path: 'sessions/revocations',
    body: dryRun({ ip: NETWORK.cidr }),
    check: ({ matched }) => matched === NETWORK.sessions,
  },
  {
    what: 'dry run, all',
    path: 'sessions/revocations',
    body: dryRun({ all: true }),
    check: ({ matched = 0 }) => matched > SMALL / 2,
    noLimitReason: 'up to 10,000 sessions are found, to count their users',
  },
  { what: 'users with include=sessions', path: 'users?include=sessions', check: isPage },
  {
    what: 'users with signedInBefore',
    path: `users?signedInBefore=${daysAgo(30)}&sort=createdAt`,
    check: isPage,
  },
];

/** Compares a million sessions with a thousand, and measures others while 10,000 sessions end. */
export async function benchSessions(rounds: number): Promise<Row[]> {
  return withTargets(async (small, large) => {
    const rows: Row[] = [];
    for (const { what, path, body, check, noLimitReason } of SHAPES) {
      const calls = [small, large].map((target) => ({
        send: () => send(target, path, body, check),
        repetitions: 7,
      }));
      const [few = 0, many = 0] = await measureInTurns(calls, rounds);
      rows.push({
        what: `${what}: ${LARGE} sessions to ${SMALL}`,
        figure: `${many.toFixed(1)} ms to ${few.toFixed(1)} ms`,
        ratio: many / few,
        wanted: noLimitReason ?? '<= 1.5',
        met: noLimitReason !== undefined || many / few <= 1.5,
      });
    }
    return [...rows, ...(await measureOthers(large))];
  });
}

/** Other requests at a steady rate, first alone, then while sessions end. */
async function measureOthers(target: AdminTarget): Promise<Row[]> {
  const alone = await probeWhile(target, () => new Promise((resolve) => setTimeout(resolve, 5000)));
  let seconds = 0;
  const during = await probeWhile(target, async () => {
    for (let call = 0; call < 5; call += 1) {
      const startedAt = performance.now();
      await send(
        target,
        'sessions/revocations',
        { filter: { all: true }, reason: 'bench' },
        ({ revoked }) => revoked === ENDED_AT_ONCE,
      );
      seconds += (performance.now() - startedAt) / 5000;
    }
  });
  return during.map(({ path, times }, index) => {
    const p99 = percentile(times, 0.99);
    const before = percentile(alone[index]?.times ?? [], 0.99);
    return {
      what: `p99 of GET ${path} while calls end ${ENDED_AT_ONCE} of ${LARGE} sessions each`,
      figure: `${p99.toFixed(1)} ms, alone ${before.toFixed(1)} ms; ${seconds.toFixed(2)} s a call, ${times.length} requests`,
      ratio: p99 / 50,
      wanted: '<= 50 ms',
      met: p99 <= 50,
    };
  });
}

async function probeWhile(target: AdminTarget, work: () => Promise<unknown>) {
  const probes = ['auth/me', 'users?limit=20&total=none'].map((path) => ({
    path,
    times: [] as number[],
  }));
  let isRunning = true;
  const loops = probes.map(async ({ path, times }) => {
    while (isRunning) {
      const startedAt = performance.now();
      await send(target, path, undefined, () => true);
      times.push(performance.now() - startedAt);
      await new Promise((resolve) => setTimeout(resolve, PROBE_INTERVAL_MS));
    }
  });
  await work();
  isRunning = false;
  await Promise.all(loops);
  return probes;
}

async function send(
  { url, token }: AdminTarget,
  path: string,
  body: object | undefined,
  check: (body: Answer) => boolean,
): Promise<void> {
  const response = await fetch(`${url}/api/v1/${path}`, {
    method: body ? 'POST' : 'GET',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body && { body: JSON.stringify(body) }),
  });
  const answer = (await response.json()) as Answer;
  if (response.status !== 200 || !check(answer)) {
    throw new Error(`${path} answered ${response.status}: ${JSON.stringify(answer).slice(0, 500)}`);
  }
}

async function withTargets<Result>(
  work: (small: AdminTarget, large: AdminTarget) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-bench-'));
  const log = openSync(devNull, 'w');
  const started: { stop(): Promise<unknown> }[] = [];
  try {
    const postgres = await startPostgres({
      dataDir: join(folder, 'postgres'),
      // Writes are durable, because the end of sessions is measured.
      settings: { shared_buffers: '512MB', max_wal_size: '4GB', maintenance_work_mem: '256MB' },
    });
    started.push(postgres);
    const open = async (name: string, count: number): Promise<AdminTarget> => {
      const databaseUrl = await seedSessions(postgres, name, count);
      const auth = await startBetterAuth({ databaseUrl, sid: true, nodeEnv: 'production' });
      await pin(auth.pid, OTHER_CORES);
      started.push(auth);
      const { session } = await signUpAdmin(databaseUrl, auth);
      const target = await startTarget(databaseUrl, auth, session, log);
      started.push({ stop: () => target.product.end('SIGINT') });
      return target;
    };
    return await work(await open('small', SMALL), await open('large', LARGE));
  } finally {
    for (const part of started.toReversed()) await part.stop();
    closeSync(log);
    await rm(folder, { recursive: true, force: true });
  }
}

/** A third of the sessions has expired. Every second user has not signed in for months. */
async function seedSessions(postgres: Postgres, name: string, count: number): Promise<string> {
  await postgres.createDatabase(name);
  const databaseUrl = postgres.url(name);
  await migrate(databaseUrl);
  const users = count / 5;
  await withClient(databaseUrl, async (client) => {
    await client.query(`
      insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role)
      select md5(n::text), 'Somebody ' || n, n || '@example.org', true,
        now() - interval '2 years' + n * interval '1 year' / ${users}, now(), 'user'
      from generate_series(1, ${users}) n;
      insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt", "ipAddress",
        "userAgent")
      select md5('s' || n), 'token-' || n, md5((1 + n % ${users})::text),
        now() + ((n::bigint * 7919) % 30000 - 10000) * interval '1 minute',
        now() - case when (1 + n % ${users}) % 2 = 0 then interval '90 days' else interval '0' end
          - n * interval '20 days' / ${count},
        now() - ((n::bigint * 104729) % 1000000) * interval '1 second',
        case when n % (${count} / ${NETWORK.sessions}) = 0 then '203.0.113.' || n % 250
          when n % 10 = 0 then '' else '10.' || n % 251 || '.' || n % 241 || '.' || n % 239 end,
        'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0'
      from generate_series(1, ${count}) n;
      update session set "expiresAt" = now() + interval '5 days' where "ipAddress" like '203.0.113.%'`);
    await client.query('vacuum analyze');
    await client.query('checkpoint');
  });
  return databaseUrl;
}

function daysAgo(days: number): string {
  return new Date(Date.now() - days * 86_400_000).toISOString();
}

if (import.meta.main) {
  printRows(await benchSessions(process.argv.includes('--quick') ? 5 : 15));
}
