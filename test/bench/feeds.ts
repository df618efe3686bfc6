import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Pool } from 'pg';
import type { ChangeFeed as Feed } from '../../src/database/change-feed.ts';
import { startPostgres } from '../../tools/postgres.ts';
import { median, quantile } from './median.ts';
import { migrate } from './seed.ts';
import { printRows, type Row } from './row.ts';

const COUNTS = [1, 2, 5, 20];
const CHANGES_PER_SECOND = 50;

/**
 * Measures what change feeds cost PostgreSQL, idle and while requests use the cache, and how long
 * a change takes to reach all of them. The feeds are those of the build, without their services.
 */
export async function benchFeeds(seconds: number): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-feeds-'));
  const postgres = await startPostgres({ dataDir: join(folder, 'postgres') });
  try {
    await postgres.createDatabase('bench');
    const url = postgres.url('bench');
    await migrate(url);
    const writer = new Client({ connectionString: url });
    await writer.connect();
    await writer.query(`insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
      select 'u' || n, 'User', 'u' || n || '@bench.example', true, now(), now() from generate_series(1, 1000) n`);
    const rows: Row[] = [];
    const alone = await measure(postgres.pid, url, writer, 0, seconds);
    for (const count of COUNTS) {
      const { idle, busy, late } = await measure(postgres.pid, url, writer, count, seconds);
      const [idleEach, busyEach] = [(idle - alone.idle) / count, (busy - alone.busy) / count];
      const [p50, p99] = [median(late), quantile(late, 0.99)];
      rows.push({
        what: `${count} feeds: CPU time of PostgreSQL for each, idle`,
        figure: `${(idleEach * 60).toFixed(2)} s a minute (${(idleEach * 100).toFixed(2)} % of a core)`,
        ratio: idleEach / 0.002,
        wanted: '<= 0.2 % of a core',
        met: idleEach <= 0.002,
      });
      rows.push({
        what: `${count} feeds: CPU time of PostgreSQL for each, in use, ${CHANGES_PER_SECOND} changes a second`,
        figure: `${(busyEach * 60).toFixed(2)} s a minute (${(busyEach * 100).toFixed(2)} % of a core)`,
        ratio: busyEach,
        wanted: '-',
        met: true,
      });
      rows.push({
        what: `${count} feeds: from the commit until a feed has the change, ${late.length} times`,
        figure: `p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, longest ${quantile(late, 1 - 1e-9).toFixed(1)} ms`,
        ratio: p99 / 40,
        wanted: 'p50 <= 15 ms, p99 <= 40 ms',
        met: p50 <= 15 && p99 <= 40,
      });
    }
    await writer.end();
    return rows;
  } finally {
    await postgres.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

interface Cost {
  /** Cores that PostgreSQL used. */
  idle: number;
  busy: number;
  /** Milliseconds from each commit to each feed. */
  late: number[];
}

async function measure(
  postmaster: number,
  url: string,
  writer: Client,
  count: number,
  seconds: number,
): Promise<Cost> {
  const pool = new Pool({ connectionString: url });
  const committedAt = new Map<string, number>();
  const late: number[] = [];
  const feeds = await Promise.all(Array.from({ length: count }, () => startFeed(url, pool)));
  for (const feed of feeds) {
    feed.subscribe({
      invalidateAll: () => undefined,
      invalidateUser: (id) => late.push(performance.now() - (committedAt.get(id) ?? Infinity)),
    });
  }
  while (feeds.some(({ isConnected }) => !isConnected)) await sleep(50);
  // Until the first frequent polls have ended.
  await sleep(3000);
  // Takes longer: an idle feed uses little CPU time, which is counted in hundredths of a second.
  const idle = await coresUsed(postmaster, () => sleep(2 * seconds * 1000));
  const requests = setInterval(() => {
    for (const feed of feeds) feed.requestLease(performance.now());
  }, 20);
  const busy = await coresUsed(postmaster, () => change(writer, committedAt, seconds));
  await sleep(500);
  clearInterval(requests);
  for (const feed of feeds) feed.onApplicationShutdown();
  await pool.end();
  // A feed can have the change before the writer has its response.
  return { idle, busy, late: late.map((ms) => Math.max(ms, 0)) };
}

/** Changes one user after another. */
async function change(writer: Client, committedAt: Map<string, number>, seconds: number) {
  for (let number = 1; number <= seconds * CHANGES_PER_SECOND; number += 1) {
    const startedAt = performance.now();
    const id = `u${number}`;
    await writer.query(`update "user" set "updatedAt" = now() where id = $1`, [id]);
    committedAt.set(id, performance.now());
    // Random, so that the changes are not synchronous with the polls.
    const pause = (1000 / CHANGES_PER_SECOND) * 2 * Math.random();
    await sleep(Math.max(0, pause - (performance.now() - startedAt)));
  }
}

async function startFeed(url: string, pool: Pool): Promise<Feed> {
  const { ChangeFeed } = await built<{ ChangeFeed: typeof Feed }>('database/change-feed.js');
  const { parseEnvironment } =
    await built<typeof import('../../src/config/environment.ts')>('config/environment.js');
  const { inspectWith } =
    await built<typeof import('../../src/database/inspect.ts')>('database/inspect.js');
  const environment = parseEnvironment({ NODE_ENV: 'test', DATABASE_URL: url });
  const client = new Client({ connectionString: url });
  await client.connect();
  const physical = await inspectWith(client, environment);
  await client.end();
  const em = { getDriver: () => ({ getConnection: () => ({ getNativeClient: () => pool }) }) };
  const log = { info: () => undefined, warn: (...line: unknown[]) => console.error(...line) };
  const feed = new ChangeFeed(em as never, environment, physical, log as never);
  feed.onApplicationBootstrap();
  return feed;
}

async function built<Module>(path: string): Promise<Module> {
  return (await import(`../../dist/src/${path}`)) as Module;
}

/** The CPU time of PostgreSQL during `work`, divided by its duration. */
async function coresUsed(postmaster: number, work: () => Promise<unknown>): Promise<number> {
  const [startedAt, before] = [performance.now(), cpuSeconds(postmaster)];
  await work();
  return (cpuSeconds(postmaster) - before) / ((performance.now() - startedAt) / 1000);
}

/** Of the server, its processes, and those that have ended. */
function cpuSeconds(postmaster: number): number {
  const children = readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, 'utf8');
  const ticks = (pid: string, fields: number[]) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const values = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields.reduce((sum, field) => sum + Number(values[field]), 0);
  };
  // utime, stime, and for the server also those of ended processes.
  const own = ticks(String(postmaster), [11, 12, 13, 14]);
  return (
    children
      .split(' ')
      .filter(Boolean)
      .reduce((sum, pid) => sum + ticks(pid, [11, 12]), own) / TICKS_PER_SECOND
  );
}

const TICKS_PER_SECOND = 100;

if (import.meta.main) printRows(await benchFeeds(10));
