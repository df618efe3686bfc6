import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { startPostgres } from '../../tools/postgres.ts';
import { signUpAdmin, startTarget } from './admin-target.ts';
import { migrate, withClient } from './seed.ts';
import { printRows, type Row } from './row.ts';

/** The number of events in the warm-up export. Events are a minute apart. */
const WARM_UP = 50_000;
const MAX_GROWTH_MB = 50;
/** The slow reader pauses after each block of this size. */
const SLOW_READ = { bytes: 256 * 1024, restMs: 20 };

/** Measures the memory of the server during exports to a fast and to a slow reader. */
export async function benchAuditExport(events: number): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-bench-'));
  const started: { stop(): Promise<unknown> }[] = [];
  try {
    const postgres = await startPostgres({
      dataDir: join(folder, 'postgres'),
      settings: { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' },
    });
    started.push(postgres);
    await postgres.createDatabase('audit');
    const databaseUrl = postgres.url('audit');
    await migrate(databaseUrl);
    const auth = await startBetterAuth({ databaseUrl, sid: true, nodeEnv: 'production' });
    started.push(auth);
    const { session } = await signUpAdmin(databaseUrl, auth);
    await withClient(databaseUrl, async (client) => {
      await client.query(seed(events));
      await client.query('vacuum analyze gatehouse.audit_event');
    });
    const { url: origin, token, product } = await startTarget(databaseUrl, auth, session, 'pipe');
    started.push({ stop: () => product.end('SIGINT') });

    const url = `${origin}/api/v1/audit-events`;
    // The warm-up export keeps the normal memory of the server out of the measurement.
    const since = new Date(Date.now() - WARM_UP * 60_000).toISOString();
    await read(await begin(`${url}?from=${since}`, token), 0);
    const rows: Row[] = [];
    for (const [what, restMs] of [
      ['a reader as fast as it goes', 0],
      ['a slow reader', SLOW_READ.restMs],
    ] as const) {
      await sleep(1000);
      const before = product.residentMegabytes();
      let most = before;
      const watch = setInterval(() => (most = Math.max(most, product.residentMegabytes())), 100);
      const startedAt = performance.now();
      const lines = await read(await begin(url, token), restMs);
      const seconds = (performance.now() - startedAt) / 1000;
      clearInterval(watch);
      if (lines !== events) throw new Error(`${what} got ${lines} events of ${events}`);
      await sleep(1000);
      const after = product.residentMegabytes();
      rows.push({
        what: `export of ${events} events, ${what}: memory at most to before`,
        figure: `${most.toFixed(0)} MB to ${before.toFixed(0)} MB, ${after.toFixed(0)} MB after; ${seconds.toFixed(0)} s`,
        ratio: most / before,
        wanted: `+${MAX_GROWTH_MB} MB at most`,
        met: most - before <= MAX_GROWTH_MB,
      });
    }
    return rows;
  } finally {
    for (const part of started.toReversed()) await part.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

const seed = (events: number) => `
  insert into gatehouse.audit_event (id, at, action, actor_id, target_user_id, before, after, reason,
    request_id, ip, user_agent)
  select uuidv7((n - ${events}) * interval '1 minute'), now() + (n - ${events}) * interval '1 minute',
    'user.banned', md5((n % 20)::text), md5(n::text), '{"banned": false, "banReason": null}',
    '{"banned": true, "banReason": "spam"}', 'spam', gen_random_uuid()::text, '203.0.113.7',
    'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0'
  from generate_series(1, ${events}) n`;

async function begin(url: string, token: string): Promise<IncomingMessage> {
  const headers = { authorization: `Bearer ${token}`, accept: 'application/x-ndjson' };
  const [response] = (await once(get(url, { headers }), 'response')) as [IncomingMessage];
  if (response.statusCode !== 200)
    throw new Error(`The export was answered ${response.statusCode}`);
  return response;
}

/** Returns the number of received lines. */
async function read(response: IncomingMessage, restMs: number): Promise<number> {
  let lines = 0;
  let bytesRead = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    for (const byte of chunk) if (byte === 10) lines += 1;
    bytesRead += chunk.length;
    if (restMs === 0 || bytesRead < SLOW_READ.bytes) continue;
    bytesRead = 0;
    await sleep(restMs);
  }
  return lines;
}

if (import.meta.main) printRows(await benchAuditExport(1_000_000));
