import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { Agent, get } from 'node:http';
import { devNull, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { startPostgres } from '../../tools/postgres.ts';
import { encodeCursor } from '../../src/validation/cursor.ts';
import { runBuilt } from '../support/built-program.ts';
import { startProcess } from '../support/app-process.ts';
import { dropIndexes, seedUsers, TERMS, withClient } from './seed.ts';
import { pin, SERVER_CORES } from './load.ts';
import { printRows, type Row } from './row.ts';

const SMALL = 1000;
const LARGE = 1_000_000;

/** A list request to Gatehouse, and to Better-Auth if it has a similar one. */
interface Shape {
  what: string;
  query: (target: ListTarget) => string;
  /** The similar query of Better-Auth. */
  betterAuthQuery?: string;
  /** The reason why this list has no limit. */
  noLimitReason?: string;
}

const SHAPES: Shape[] = [
  {
    what: 'first page',
    query: () => '',
    betterAuthQuery: 'sortBy=createdAt&sortDirection=desc',
  },
  {
    what: 'deep page, by cursor',
    query: ({ cursor }) => `cursor=${cursor}`,
    betterAuthQuery: `sortBy=createdAt&sortDirection=desc&offset=${LARGE / 2}`,
  },
  {
    what: `q=${TERMS.one}, one`,
    query: () => `q=${TERMS.one}`,
    betterAuthQuery: `searchField=email&searchOperator=contains&searchValue=${TERMS.one}`,
  },
  {
    what: `q=${TERMS.surname}, one in a thousand`,
    query: () => `q=${TERMS.surname}`,
    noLimitReason: 'all that match are read, to find the newest',
  },
  {
    what: `q=${TERMS.firstName}, one in twelve`,
    query: () => `q=${TERMS.firstName}`,
    betterAuthQuery: `searchField=email&searchOperator=contains&searchValue=${TERMS.firstName}&sortBy=createdAt&sortDirection=desc`,
  },
  { what: `q=${TERMS.domain}, most`, query: () => `q=${TERMS.domain}` },
  { what: 'role=admin', query: () => 'role=admin' },
  { what: 'role=user', query: () => 'role=user' },
  { what: 'banned=true', query: () => 'banned=true' },
  { what: 'emailVerified=false', query: () => 'emailVerified=false' },
  { what: 'sort=email', query: () => 'sort=email' },
];

/** Compares lists of a million users with lists of a thousand and with those of Better-Auth. */
export async function benchLists(rounds: number): Promise<Row[]> {
  return withBenchEnv({}, async ({ small, large, betterAuth }) => {
    const rows: Row[] = [];
    for (const { what, query, betterAuthQuery, noLimitReason } of SHAPES) {
      const requests = [
        { ...small, path: `/api/v1/users?${query(small)}`, repetitions: 7 },
        { ...large, path: `/api/v1/users?${query(large)}`, repetitions: 7 },
        ...(betterAuthQuery === undefined
          ? []
          : [
              {
                ...betterAuth,
                path: `/api/auth/admin/list-users?limit=20&${betterAuthQuery}`,
                repetitions: 1,
              },
            ]),
      ];
      const [few = 0, many = 0, theirs] = await measureInTurns(requests, rounds);
      rows.push({
        what: `${what}: ${LARGE} users to ${SMALL}`,
        figure: `${many.toFixed(1)} ms to ${few.toFixed(1)} ms`,
        ratio: many / few,
        wanted: noLimitReason ?? '<= 1.5',
        met: noLimitReason !== undefined || many / few <= 1.5,
      });
      if (theirs === undefined) continue;
      rows.push({
        what: `${what}: Better-Auth's list-users to ours, ${LARGE} users`,
        figure: `${theirs.toFixed(1)} ms to ${many.toFixed(1)} ms`,
        ratio: theirs / many,
        wanted: '>= 20',
        met: theirs / many >= 20,
      });
    }
    return rows;
  });
}

// ── What is measured ────────────────────────────────────────────────────────────────────────────

interface ListRequest {
  url: string;
  path: string;
  token: string;
  /** The number of requests in each round. Slow requests are sent less often. */
  repetitions: number;
}

/** Returns the median of each. Taking turns spreads the other load of the machine over all. */
async function measureInTurns(requests: ListRequest[], rounds: number): Promise<number[]> {
  const times = requests.map((): number[] => []);
  for (const request of requests) await ask(request);
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, request] of requests.entries()) {
      for (let turn = 0; turn < request.repetitions; turn += 1) {
        const startedAt = performance.now();
        await ask(request);
        times[index]?.push(performance.now() - startedAt);
      }
    }
  }
  return times.map(median);
}

const agent = new Agent({ keepAlive: true });

/** Returns the response. An error or an empty page would be fast and must not count. */
async function ask({ url, path, token }: Omit<ListRequest, 'repetitions'>): Promise<Answer> {
  const { status, body } = await new Promise<{ status: number | undefined; body: string }>(
    (resolve, reject) => {
      const headers = { authorization: `Bearer ${token}` };
      get(url + path, { agent, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() }),
        );
      }).on('error', reject);
    },
  );
  const answer = status === 200 ? (JSON.parse(body) as Answer) : {};
  const users = answer.items ?? answer.users ?? [];
  const total = answer.pagination?.total ?? answer.total ?? 0;
  if (users.length !== Math.min(total, 20) || users.length === 0) {
    throw new Error(`${url}${path} answered ${status} with ${users.length} of ${total}: ${body}`);
  }
  return answer;
}

interface Answer {
  items?: unknown[];
  pagination?: { total: number; totalIsEstimate: boolean };
  /** The fields of Better-Auth. */
  users?: unknown[];
  total?: number;
}

function median(times: number[]): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? NaN;
}

// ── What it is measured on ──────────────────────────────────────────────────────────────────────

interface ListTarget {
  url: string;
  token: string;
  /** The cursor of the page after half of the users. */
  cursor: string;
}

interface BenchEnv {
  small: ListTarget;
  large: ListTarget;
  /** Better-Auth on a copy of the large database without the indexes of Gatehouse. */
  betterAuth: { url: string; token: string };
}

interface BenchEnvOptions {
  settings?: Record<string, string>;
  output?: (line: string) => void;
}

async function withBenchEnv<Result>(
  { settings = {}, output }: BenchEnvOptions,
  work: (env: BenchEnv) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-bench-'));
  const log = openSync(devNull, 'w');
  const started: { stop(): Promise<unknown> }[] = [];
  try {
    const postgres = await startPostgres({
      dataDir: join(folder, 'postgres'),
      settings: { ...SETTINGS, ...settings },
      ...(output ? { output } : {}),
    });
    started.push(postgres);
    const make = async (name: string, count: number) => {
      await postgres.createDatabase(name);
      await run('src/cli/migrate.js', { DATABASE_URL: postgres.url(name) });
      await seedUsers(postgres.url(name), count);
    };
    const startAuth = async (name: string) => {
      const databaseUrl = postgres.url(name);
      const auth = await startBetterAuth({ databaseUrl, sid: true, nodeEnv: 'production' });
      await pin(auth.pid, SERVER_CORES);
      started.push(auth);
      return { auth, admin: await signUpAdmin(databaseUrl, auth) };
    };
    const open = async (name: string): Promise<ListTarget> => {
      const { auth, admin } = await startAuth(name);
      const product = await startProcess(
        {
          DATABASE_URL: postgres.url(name),
          BETTER_AUTH_URL: auth.origin,
          RATE_LIMIT_PER_MINUTE: '0',
        },
        { output: log },
      );
      await pin(product.child.pid, SERVER_CORES);
      started.push({ stop: () => product.end('SIGINT') });
      return {
        url: product.url,
        token: await auth.tokenFor(admin.session),
        cursor: await cursorToMiddle(postgres.url(name)),
      };
    };
    await make('small', SMALL);
    await make('large', LARGE);
    await postgres.createDatabase('plain', 'large');
    await withClient(postgres.url('plain'), dropIndexes);
    const { auth, admin } = await startAuth('plain');
    return await work({
      small: await open('small'),
      large: await open('large'),
      betterAuth: { url: auth.url, token: admin.session },
    });
  } finally {
    agent.destroy();
    for (const part of started.toReversed()) await part.stop();
    closeSync(log);
    await rm(folder, { recursive: true, force: true });
  }
}

/** Only reads are measured, so the durability of writes is turned off. */
const SETTINGS = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  shared_buffers: '512MB',
  max_wal_size: '4GB',
  maintenance_work_mem: '256MB',
};

async function run(program: string, variables: Record<string, string>): Promise<void> {
  const { code, stderr } = await runBuilt(program, variables);
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${stderr}`);
}

/** An admin, signed in at Better-Auth. */
async function signUpAdmin(databaseUrl: string, auth: BetterAuth): Promise<{ session: string }> {
  const { user, sessionToken } = await auth.signUp({
    email: 'root@example.edu',
    password: 'a long password',
    name: 'Root',
  });
  await withClient(databaseUrl, (client) =>
    client.query(`update "user" set role = 'admin' where id = $1`, [user.id]),
  );
  return { session: sessionToken };
}

async function cursorToMiddle(databaseUrl: string): Promise<string> {
  const { rows } = await withClient(databaseUrl, (client) =>
    client.query<{ value: string; id: string }>(`
      select "createdAt"::text as value, id from "user" order by "createdAt" desc, id desc
      offset (select count(*) / 2 from "user") limit 1`),
  );
  return encodeCursor({ sort: '-createdAt', ...(rows[0] ?? { value: '', id: '' }) });
}

// ── Program ─────────────────────────────────────────────────────────────────────────────────────

/** Prints the plan of PostgreSQL for each list. */
async function explainLists(): Promise<void> {
  const lines: string[] = [];
  const settings = {
    session_preload_libraries: 'auto_explain',
    'auto_explain.log_min_duration': '0',
    'auto_explain.log_analyze': 'on',
    'auto_explain.log_buffers': 'on',
    'auto_explain.log_timing': 'off',
  };
  await withBenchEnv({ settings, output: (line) => lines.push(line) }, async ({ large }) => {
    for (const { what, query } of SHAPES) {
      const request = { ...large, path: `/api/v1/users?${query(large)}` };
      // The first request loads pages into memory.
      await ask(request);
      await sleep(500);
      lines.length = 0;
      const { pagination } = await ask(request);
      await sleep(500);
      console.log(`\n── ${what}: ${JSON.stringify(pagination)}\n${lines.join('\n')}`);
    }
  });
}

if (import.meta.main) {
  if (process.argv.includes('--explain')) await explainLists();
  else printRows(await benchLists(15));
}
