import { setTimeout as sleep } from 'node:timers/promises';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import type { AppProcess } from '../support/app-process.ts';
import { printRows, type Row } from './row.ts';
import { type BenchUser, withBenchEnv, type BenchEnv } from './bench-env.ts';

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
    await untilListening(here, there);
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
      const p99 = late[Math.floor(late.length * 0.99)] ?? NaN;
      rows.push({
        what: `a ban ${how} is in force here, ${late.length} times`,
        figure: `p50 ${(late[Math.floor(late.length / 2)] ?? NaN).toFixed(1)}, p99 ${p99.toFixed(1)}, longest ${(late.at(-1) ?? NaN).toFixed(1)} ms after the change had answered`,
        ratio: p99 / 50,
        wanted: 'p99 <= 50 ms',
        met: p99 <= 50,
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
 * Measures the same while the connection of the listener is reset around each batch of bans. The
 * listener can reconnect a little later. The delay is the time from the response to a ban until the
 * start of the last request that was still accepted.
 */
export async function benchCuts(changes: number): Promise<Row[]> {
  return withBenchEnv(changes, async (env) => {
    const proxy = await startTcpProxy(() => Number(new URL(env.databaseUrl).port));
    const direct = new URL(env.databaseUrl);
    direct.host = `127.0.0.1:${proxy.port}`;
    const replica = await env.serve({ DATABASE_DIRECT_URL: direct.href });
    const late: number[] = [];
    let cuts = 0;
    for (let first = 0; first < changes; first += BATCH) {
      await untilListening(replica);
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
        what: `${late.length} bans while the listener is cut ${cuts} times: let in after the ban`,
        figure: `p99 ${(late[Math.floor(late.length * 0.99)] ?? NaN).toFixed(1)}, longest ${longest.toFixed(1)} ms`,
        ratio: longest / 1000,
        wanted: '<= 1000 ms',
        met: longest <= 1000,
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

export async function untilListening(...replicas: AppProcess[]): Promise<void> {
  for (const { url } of replicas) {
    for (let attempt = 0; attempt < 100; attempt += 1) {
      const { parts } = (await (await fetch(`${url}/health`)).json()) as Health;
      if (parts.changeFeed.state === 'listening') break;
      await sleep(50);
    }
  }
}

interface Health {
  parts: { changeFeed: { state: string } };
}

/** Measures the cost of the triggers: the same statements with and without them. */
export async function benchTriggers(times: number): Promise<Row[]> {
  return withBenchEnv(times * 4, async (env) => {
    const statements: [string, string][] = [
      [
        'a session begun (signing in)',
        `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
         values ('new-' || $1, 'new-' || $1, 'bench-' || $1, now() + interval '1 day', now(), now())`,
      ],
      ['a session prolonged', `update session set "updatedAt" = now() where id = 'session-' || $1`],
      ['a session ended (signing out)', `delete from session where id = 'session-' || $1`],
    ];
    const rows: Row[] = [];
    for (const [what, statement] of statements) {
      const took: Record<'on' | 'off', number[]> = { on: [], off: [] };
      for (let time = 0; time < times * 2; time += 1) {
        const triggers = Math.floor(time / BLOCK) % 2 === 0 ? 'on' : 'off';
        if (time % BLOCK === 0) await switchTriggers(env, triggers);
        const startedAt = performance.now();
        await env.sql.query(statement, [String(time + 1)]);
        // The first statement of each block includes planning and is ignored.
        if (time % BLOCK > 0) took[triggers].push(performance.now() - startedAt);
      }
      const [on, off] = [median(took.on), median(took.off)];
      rows.push({
        what: `${what}: with the triggers to without`,
        figure: `${on.toFixed(3)} to ${off.toFixed(3)} ms`,
        ratio: on / off,
        wanted: '-',
        met: true,
      });
    }
    return [...rows, await signIns(env, Math.ceil(times / 10))];
  });
}

const BLOCK = 10;

/** Switches the triggers of Gatehouse. The triggers of foreign keys stay enabled. */
async function switchTriggers({ sql }: BenchEnv, to: 'on' | 'off'): Promise<void> {
  const word = to === 'on' ? 'enable' : 'disable';
  for (const table of ['"user"', 'session']) {
    await sql.query(`alter table ${table} ${word} trigger user`);
  }
}

/** Measures complete sign-ins at a real Better-Auth, with the triggers and without. */
async function signIns(env: BenchEnv, times: number): Promise<Row> {
  const { auth } = env;
  const person = { email: 'signs-in@bench.example', password: 'a long password', name: 'Ada' };
  await auth.signUp(person);
  const took: Record<'on' | 'off', number[]> = { on: [], off: [] };
  for (let time = 0; time < times * 2; time += 1) {
    const triggers = time % 2 === 0 ? 'on' : 'off';
    await switchTriggers(env, triggers);
    const startedAt = performance.now();
    await auth.signIn(person);
    took[triggers].push(performance.now() - startedAt);
  }
  await switchTriggers(env, 'on');
  const [on, off] = [median(took.on), median(took.off)];
  return {
    what: "Better-Auth's sign-in: with the triggers to without",
    figure: `${on.toFixed(1)} to ${off.toFixed(1)} ms`,
    ratio: on / off,
    wanted: '-',
    met: true,
  };
}

function median(times: number[]): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? NaN;
}

if (import.meta.main) {
  const changes = process.argv.includes('--quick') ? 100 : 1000;
  printRows([
    ...(await benchReplicas(changes)),
    ...(await benchCuts(changes)),
    ...(await benchTriggers(changes)),
  ]);
}
