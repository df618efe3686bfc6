import { setTimeout as sleep } from 'node:timers/promises';
import { FEED_CONNECTION, startTcpProxy } from '../support/tcp-proxy.ts';
import type { AppProcess } from '../support/app-process.ts';
import { median, quantile } from './median.ts';
import { printRows, type Row } from './row.ts';
import { type BenchUser, withBenchEnv } from './bench-env.ts';

const ME = '/api/v1/auth/me';
const BAN = 'update "user" set banned = true where id = $1';

/**
 * Measures the delay from the response to a ban until a replica with the cached user rejects it.
 * The client sends requests without a pause from before the ban until the first refusal. The delay
 * includes the time of the refused request.
 */
export async function benchReplicas(changes: number): Promise<Row[]> {
  return withBenchEnv(changes * 3, async (env) => {
    const here = await env.serve();
    const there = await env.serve();
    await untilConnected(here, there);
    const admin = env.users[0] as BenchUser;
    await env.sql.query(`update "user" set role = 'admin' where id = $1`, [admin.id]);
    const adminToken = env.token(admin);

    const ways: [string, (user: BenchUser) => Promise<unknown>][] = [
      [
        'by another Gatehouse',
        async ({ id }) =>
          ok(await fetch(`${there.url}/api/v1/users/${id}/ban`, banning(adminToken))),
      ],
      [
        'by Better-Auth',
        async ({ id }) =>
          ok(
            await fetch(`${env.auth.url}/api/auth/admin/ban-user`, {
              ...banning(admin.session, { userId: id }),
            }),
          ),
      ],
      ['by SQL', ({ id }) => env.sql.query(BAN, [id])],
    ];
    const rows: Row[] = [];
    for (const [index, [how, ban]] of ways.entries()) {
      const targets = env.users.slice(1 + index * changes, 1 + (index + 1) * changes);
      const late: number[] = [];
      for (const target of targets.slice(0, changes - 1)) {
        late.push(await delayOfRefusal(here, env.token(target), () => ban(target)));
      }
      late.sort((a, b) => a - b);
      const [p50, p99] = [median(late), quantile(late, 0.99)];
      rows.push({
        what: `a ban ${how} is in force here, ${late.length} times`,
        figure: `p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, longest ${(late.at(-1) ?? NaN).toFixed(1)} ms after the change had answered`,
        ratio: p99 / 40,
        wanted: 'p50 <= 15 ms, p99 <= 40 ms',
        met: p50 <= 15 && p99 <= 40,
      });
    }
    return rows;
  });
}

/** The time from the response to `change` until the first refusal, or 0 if that came earlier. */
async function delayOfRefusal(
  { url }: AppProcess,
  token: string,
  change: () => Promise<unknown>,
): Promise<number> {
  const ask = async () =>
    (await fetch(url + ME, { headers: { authorization: `Bearer ${token}` } })).status;
  for (let time = 0; time < 2; time += 1) if ((await ask()) !== 200) throw new Error('not let in');
  const changed = change().then(() => performance.now());
  const deadline = performance.now() + 5000;
  while ((await ask()) === 200) {
    if (performance.now() > deadline) throw new Error('A change was not seen within five seconds.');
  }
  const refused = performance.now();
  return Math.max(0, refused - (await changed));
}

const BATCH = 20;

/**
 * Measures the same while the connection of the change feed is reset around each batch of bans. The
 * feed can connect again a little later. The delay is the time from the response to a ban until the
 * start of the last request that was still accepted.
 */
export async function benchCuts(changes: number): Promise<Row[]> {
  return withBenchEnv(changes, async (env) => {
    const port = Number(new URL(env.databaseUrl).port);
    const proxy = await startTcpProxy(() => port, FEED_CONNECTION);
    const proxied = new URL(env.databaseUrl);
    proxied.host = `127.0.0.1:${proxy.port}`;
    const replica = await env.serve({ DATABASE_URL: proxied.href });
    const late: number[] = [];
    let cuts = 0;
    for (let first = 0; first < changes; first += BATCH) {
      await untilConnected(replica);
      const targets = env.users.slice(first, first + BATCH);
      // One connection bans them all, one after another.
      let turn: Promise<unknown> = Promise.resolve();
      const cut = (async () => {
        await sleep(Math.random() * 60);
        proxy.cut = true;
        proxy.resetAll();
        cuts += 1;
        await sleep(Math.random() * 200);
        proxy.cut = false;
      })();
      const banned = targets.map(async (target) => {
        const ban = async () => {
          await sleep(Math.random() * 60);
          turn = turn.then(() => env.sql.query(BAN, [target.id]));
          await turn;
        };
        return delayOfLastSuccess(replica, env.token(target), ban);
      });
      late.push(...(await Promise.all(banned)));
      await cut;
    }
    proxy.close();
    late.sort((a, b) => a - b);
    const longest = late.at(-1) ?? NaN;
    return [
      {
        what: `${late.length} bans while the change feed is cut ${cuts} times: let in after the ban`,
        figure: `p99 ${quantile(late, 0.99).toFixed(1)}, longest ${longest.toFixed(1)} ms`,
        ratio: longest / 250,
        wanted: '<= 250 ms',
        met: longest <= 250,
      },
    ];
  });
}

/** The time from the response to `change` until the start of the last accepted request, or 0. */
async function delayOfLastSuccess(
  { url }: AppProcess,
  token: string,
  change: () => Promise<unknown>,
): Promise<number> {
  const ask = async () =>
    (await fetch(url + ME, { headers: { authorization: `Bearer ${token}` } })).status;
  for (let time = 0; time < 2; time += 1) if ((await ask()) !== 200) throw new Error('not let in');
  let changedAt = Number.POSITIVE_INFINITY;
  const changed = change().then(() => (changedAt = performance.now()));
  let last = 0;
  // Continues after the first refusal, because an invalidated entry must not return to the cache.
  for (let refusals = 0; refusals < 5;) {
    const startedAt = performance.now();
    const status = await ask();
    if (status === 403) refusals += 1;
    else if (status !== 200) throw new Error(`answered ${status}`);
    else if (startedAt > changedAt) last = startedAt - changedAt;
    if (startedAt - changedAt > 5000) break;
  }
  await changed;
  return last;
}

function banning(token: string, body: object = {}): RequestInit {
  return {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify(body),
  };
}

async function ok(answer: Response): Promise<void> {
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${answer.url} answered ${answer.status}: ${text}`);
}

export async function untilConnected(...replicas: AppProcess[]): Promise<void> {
  for (const { url } of replicas) {
    for (let attempt = 0; attempt < 100; attempt += 1) {
      const { parts } = (await (await fetch(`${url}/health`)).json()) as Health;
      if (parts.changeFeed.state === 'connected') break;
      await sleep(50);
    }
  }
}

interface Health {
  parts: { changeFeed: { state: string } };
}

if (import.meta.main) {
  const changes = process.argv.includes('--quick') ? 100 : 1000;
  printRows([...(await benchReplicas(changes)), ...(await benchCuts(changes))]);
}
