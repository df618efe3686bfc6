import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { Agent, get } from 'node:http';
import { devNull, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { startPostgres } from '../../tools/postgres.ts';
import { encodeCursor } from '../../src/validation/cursor.ts';
import { type AdminTarget, signUpAdmin, startTarget } from './admin-target.ts';
import {
  AUDIT_TARGET,
  dropIndexes,
  migrate,
  seedAuditEvents,
  seedSessions,
  seedSessionsOf,
  seedUsers,
  TERMS,
  withClient,
} from './seed.ts';
import { pin, SERVER_CORES } from './load.ts';
import { printRows, type Row } from './row.ts';
import { measureInTurns, type TimedCall } from './turns.ts';

const SMALL = 1000;
const LARGE = 1_000_000;

/** A list request to Gatehouse, and to Better-Auth if it has a similar one. */
interface Shape {
  what: string;
  path: (target: ListTarget) => string;
  /** The similar query of Better-Auth. */
  betterAuthQuery?: string;
  /** The reason why this list has no limit. */
  noLimitReason?: string;
  /** The number of rows of a full page. */
  pageSize?: number;
}

const SHAPES: Shape[] = [
  {
    what: 'first page',
    path: () => 'users',
    betterAuthQuery: 'sortBy=createdAt&sortDirection=desc',
  },
  {
    what: 'deep page, by cursor',
    path: ({ cursor }) => `users?cursor=${cursor}`,
    betterAuthQuery: `sortBy=createdAt&sortDirection=desc&offset=${LARGE / 2}`,
  },
  {
    what: `q=${TERMS.one}, one`,
    path: () => `users?q=${TERMS.one}`,
    betterAuthQuery: `searchField=email&searchOperator=contains&searchValue=${TERMS.one}`,
  },
  {
    what: `q=${TERMS.surname}, one in a thousand`,
    path: () => `users?q=${TERMS.surname}`,
    noLimitReason: 'all that match are read, to find the newest',
  },
  {
    what: `q=${TERMS.firstName}, one in twelve`,
    path: () => `users?q=${TERMS.firstName}`,
    betterAuthQuery: `searchField=email&searchOperator=contains&searchValue=${TERMS.firstName}&sortBy=createdAt&sortDirection=desc`,
  },
  { what: `q=${TERMS.domain}, most`, path: () => `users?q=${TERMS.domain}` },
  { what: 'role=admin', path: () => 'users?role=admin' },
  { what: 'role=user', path: () => 'users?role=user' },
  { what: 'banned=true', path: () => 'users?banned=true' },
  {
    what: 'role=admin&sort=email',
    path: () => 'users?role=admin&sort=email',
    noLimitReason: 'no index has the users of a role in this order',
  },
  { what: 'banned=true&role=user', path: () => 'users?banned=true&role=user' },
  { what: 'banned=true&role=admin', path: () => 'users?banned=true&role=admin' },
  { what: 'emailVerified=false', path: () => 'users?emailVerified=false' },
  { what: 'sort=email', path: () => 'users?sort=email' },
  { what: 'sort=name', path: () => 'users?sort=name' },
  {
    what: "a user's sessions",
    path: ({ userId }) => `users/${userId}/sessions`,
    pageSize: 100,
  },
  { what: 'audit events', path: () => 'audit-events' },
  { what: 'audit events of an actor', path: () => 'audit-events?actorId=admin-7' },
  {
    what: 'audit events about a user',
    path: () => `audit-events?targetUserId=${AUDIT_TARGET}`,
  },
  { what: 'audit events of a rare action', path: () => 'audit-events?action=user.unbanned' },
  {
    what: 'audit events of an actor and a rare action',
    path: () => 'audit-events?actorId=admin-0&action=user.unbanned',
  },
];

/** Compares lists of many rows with lists of a thousand, and with those of Better-Auth. */
export async function benchLists(rounds: number, rowCount = LARGE): Promise<Row[]> {
  return withBenchEnv({ rowCount }, async ({ small, large, betterAuth, indexRows }) => {
    const rows = [...indexRows];
    for (const { what, path, betterAuthQuery, noLimitReason, pageSize = 20 } of SHAPES) {
      const ours = (target: ListTarget) =>
        inTurns({ ...target, path: `/api/v1/${path(target)}`, pageSize }, 7);
      const requests = [ours(small), ours(large)];
      if (betterAuth && betterAuthQuery !== undefined) {
        const theirPath = `/api/auth/admin/list-users?limit=20&${betterAuthQuery}`;
        requests.push(inTurns({ ...large, ...betterAuth, path: theirPath, pageSize }, 1));
      }
      const [few = 0, many = 0, theirs] = await measureInTurns(requests, rounds);
      rows.push({
        what: `${what}: ${rowCount} rows to ${SMALL}`,
        figure: `${many.toFixed(1)} ms to ${few.toFixed(1)} ms`,
        ratio: many / few,
        wanted: noLimitReason ?? '<= 1.5',
        met: noLimitReason !== undefined || many / few <= 1.5,
      });
      if (theirs === undefined) continue;
      rows.push({
        what: `${what}: Better-Auth's list-users to ours, ${rowCount} users`,
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
  pageSize: number;
}

const inTurns = (request: ListRequest, repetitions: number): TimedCall => ({
  send: () => ask(request),
  repetitions,
});

const agent = new Agent({ keepAlive: true });

/** Returns the response. An error or an empty page would be fast and must not count. */
async function ask({ url, path, token, pageSize }: ListRequest): Promise<Answer> {
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
  // A list of audit events has no total.
  const total = answer.pagination?.total ?? answer.total ?? pageSize;
  if (users.length !== Math.min(total, pageSize) || users.length === 0) {
    throw new Error(`${url}${path} answered ${status} with ${users.length} of ${total}: ${body}`);
  }
  return answer;
}

interface Answer {
  items?: unknown[];
  pagination?: { total?: number; totalIsEstimate?: boolean };
  /** Better-Auth's name. */
  users?: unknown[];
  total?: number;
}

// ── What it is measured on ──────────────────────────────────────────────────────────────────────

interface ListTarget extends AdminTarget {
  userId: string;
  /** The cursor of the page after half of the users. */
  cursor: string;
}

interface BenchEnv {
  small: ListTarget;
  large: ListTarget;
  /** Better-Auth on a copy of the large database without the indexes of Gatehouse. */
  betterAuth: { url: string; token: string } | undefined;
  /** The time and the size of the indexes of the large database. */
  indexRows: Row[];
}

interface BenchEnvOptions {
  rowCount: number;
  settings?: Record<string, string>;
  output?: (line: string) => void;
}

async function withBenchEnv<Result>(
  { rowCount, settings = {}, output }: BenchEnvOptions,
  work: (env: BenchEnv) => Promise<Result>,
): Promise<Result> {
  await announce(rowCount);
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
      const url = postgres.url(name);
      await postgres.createDatabase(name);
      await migrate(url);
      await timed(`${count} users`, () => seedUsers(url, count));
      const indexRows = await buildIndexes(url, count);
      await timed(`${count} sessions`, () => seedSessions(url, count));
      await timed(`${count} audit events`, () => seedAuditEvents(url, count));
      await withClient(url, (client) => client.query('vacuum analyze'));
      return indexRows;
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
      await seedSessionsOf(postgres.url(name), admin.id);
      const target = await startTarget(postgres.url(name), auth, admin.session, log);
      started.push({ stop: () => target.product.end('SIGINT') });
      return {
        ...target,
        userId: admin.id,
        cursor: await cursorToMiddle(postgres.url(name)),
      };
    };
    const startComparison = async () => {
      await postgres.createDatabase('plain', 'large');
      await withClient(postgres.url('plain'), (client) => dropIndexes(client));
      const { auth, admin } = await startAuth('plain');
      return { url: auth.url, token: admin.session };
    };
    await make('small', SMALL);
    const indexRows = await make('large', rowCount);
    // With more rows, the copy would need as much disk space again.
    const betterAuth = rowCount === LARGE ? await startComparison() : undefined;
    const [small, large] = [await open('small'), await open('large')];
    return await work({ small, large, betterAuth, indexRows });
  } finally {
    agent.destroy();
    for (const part of started.toReversed()) await part.stop();
    closeSync(log);
    await rm(folder, { recursive: true, force: true });
  }
}

const GIGABYTE = 2 ** 30;
/** The disk space and the time of a million users, sessions and audit events, as measured. */
const COST_OF_A_MILLION = { gigabytes: 2.5, minutes: 4 };

/** Says before a large run what it needs, and refuses it if the disk is too small. */
async function announce(rowCount: number): Promise<void> {
  const needed = Math.ceil((COST_OF_A_MILLION.gigabytes * rowCount) / 1_000_000);
  const minutes = Math.ceil((COST_OF_A_MILLION.minutes * rowCount) / 1_000_000);
  const { bavail, bsize } = await statfs(tmpdir());
  const free = Math.floor((bavail * bsize) / GIGABYTE);
  process.stderr.write(
    `${rowCount} users, sessions and audit events need about ${needed} GB in ${tmpdir()} (${free} GB are free) and about ${minutes} minutes.\n`,
  );
  if (free < needed) throw new Error('The disk is too small.');
}

async function timed<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
  const startedAt = performance.now();
  const result = await work();
  process.stderr.write(`  ${what}: ${((performance.now() - startedAt) / 1000).toFixed(0)} s\n`);
  return result;
}

/** Lets the migrations build the indexes on the existing users, and measures that. */
async function buildIndexes(url: string, count: number): Promise<Row[]> {
  return withClient(url, async (client) => {
    await client.query(`delete from gatehouse.migration where name like any ($1)`, [
      ['%-list-indexes', '%-bounded-indexes'],
    ]);
    const startedAt = performance.now();
    await timed(`the indexes of ${count} users`, () => migrate(url));
    const seconds = (performance.now() - startedAt) / 1000;
    const { rows } = await client.query<{ name: string; bytes: string; ours: boolean }>(`
      select c.relname as name, pg_relation_size(c.oid) as bytes, c.relname like 'gatehouse%' as ours
      from pg_index i join pg_class c on c.oid = i.indexrelid
      where i.indrelid = '"user"'::regclass order by 2 desc`);
    const { rows: tables } = await client.query<{ bytes: string }>(
      `select pg_table_size('"user"') as bytes`,
    );
    const megabytes = (bytes: string | number) => Math.round(Number(bytes) / 2 ** 20);
    const sum = (ours: boolean) =>
      rows.filter((row) => row.ours === ours).reduce((all, { bytes }) => all + Number(bytes), 0);
    const table = Number(tables[0]?.bytes);
    const largest = rows.filter((row) => row.ours && Number(row.bytes) > 1e6);
    return [
      {
        what: `indexes of Gatehouse on ${count} users`,
        figure: `${seconds.toFixed(0)} s; ${megabytes(sum(true))} MB beside ${megabytes(table)} MB of table and ${megabytes(sum(false))} MB of Better-Auth's indexes (${largest.map(({ name, bytes }) => `${name.replace(/^gatehouse_user_|_idx$/g, '')} ${megabytes(bytes)}`).join(', ')})`,
        ratio: sum(true) / table,
        wanted: '-',
        met: true,
      },
    ];
  });
}

/** Only reads are measured, so the durability of writes is turned off. */
const SETTINGS = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  shared_buffers: '512MB',
  max_wal_size: '4GB',
  maintenance_work_mem: '1GB',
};

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
  const options = { rowCount: LARGE, settings, output: (line: string) => lines.push(line) };
  await withBenchEnv(options, async ({ large }) => {
    for (const { what, path, pageSize = 20 } of SHAPES) {
      const request = { ...large, path: `/api/v1/${path(large)}`, pageSize };
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
