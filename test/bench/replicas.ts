import { setTimeout as sleep } from 'node:timers/promises';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import type { AppProcess } from '../support/app-process.ts';
import { printRows, type Row } from './row.ts';
import { type BenchUser, withWorld, type World } from './world.ts';

const ME = '/api/v1/auth/me';
const BAN = 'update "user" set banned = true where id = $1';

/**
 * From a change to its refusal by a replica that remembers the user: the replica is asked without a pause
 * from before the change until it refuses. What counts is how long after the change had answered the first
 * refusal came in, that request's own time included.
 */
export async function benchReplicas(changes: number): Promise<Row[]> {
  return withWorld(changes * 3, async (world) => {
    const here = await world.serve();
    const there = await world.serve();
    await listening(here, there);
    const admin = world.users[0] as BenchUser;
    await world.sql.query(`update "user" set role = 'admin' where id = $1`, [admin.id]);
    const adminToken = world.token(admin);

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
            await fetch(`${world.auth.url}/api/auth/admin/ban-user`, {
              ...banning(admin.session, { userId: id }),
            }),
          ),
      ],
      ['by SQL', ({ id }) => world.sql.query(BAN, [id])],
    ];
    const rows: Row[] = [];
    for (const [index, [how, ban]] of ways.entries()) {
      const victims = world.users.slice(1 + index * changes, 1 + (index + 1) * changes);
      const late: number[] = [];
      for (const victim of victims.slice(0, changes - 1)) {
        late.push(await lateness(here, world.token(victim), () => ban(victim)));
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

/** How long after `change` had answered the first refusal came in; 0 where it came in before. */
async function lateness(
  { url }: AppProcess,
  token: string,
  change: () => Promise<unknown>,
): Promise<number> {
  const ask = async () =>
    (await fetch(url + ME, { headers: { authorization: `Bearer ${token}` } })).status;
  for (let time = 0; time < 2; time += 1) if ((await ask()) !== 200) throw new Error('not let in');
  const changed = change().then(() => performance.now());
  const giveUp = performance.now() + 5000;
  while ((await ask()) === 200) {
    if (performance.now() > giveUp) throw new Error('A change was not seen within five seconds.');
  }
  const refused = performance.now();
  return Math.max(0, refused - (await changed));
}

const AT_ONCE = 20;

/**
 * The same, while the connection that listens is reset at a random moment around each twenty bans and let
 * in again a little later. What counts is how long after a ban had answered the last request began that
 * was still let in.
 */
export async function benchCuts(changes: number): Promise<Row[]> {
  return withWorld(changes, async (world) => {
    const proxy = await startTcpProxy(() => Number(new URL(world.databaseUrl).port));
    const direct = new URL(world.databaseUrl);
    direct.host = `127.0.0.1:${proxy.port}`;
    const replica = await world.serve({ DATABASE_DIRECT_URL: direct.href });
    const late: number[] = [];
    let cuts = 0;
    for (let first = 0; first < changes; first += AT_ONCE) {
      await listening(replica);
      const victims = world.users.slice(first, first + AT_ONCE);
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
      const banned = victims.map(async (victim) => {
        const ban = async () => {
          await sleep(Math.random() * 60);
          turn = turn.then(() => world.sql.query(BAN, [victim.id]));
          await turn;
        };
        return lastLetIn(replica, world.token(victim), ban);
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

/** How long after `change` had answered the last request began that was still let in; 0 for none. */
async function lastLetIn(
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
  // For a while after the first refusal, too: what was forgotten must not be remembered again.
  for (let refusals = 0; refusals < 5;) {
    const began = performance.now();
    const status = await ask();
    if (status === 403) refusals += 1;
    else if (status !== 200) throw new Error(`answered ${status}`);
    else if (began > changedAt) last = began - changedAt;
    if (began - changedAt > 5000) break;
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

export async function listening(...replicas: AppProcess[]): Promise<void> {
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

/** What the triggers cost whoever writes: the same statements with and without them. */
export async function benchTriggers(times: number): Promise<Row[]> {
  return withWorld(times * 4, async (world) => {
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
        const triggers = Math.floor(time / IN_A_ROW) % 2 === 0 ? 'on' : 'off';
        if (time % IN_A_ROW === 0) await switchTriggers(world, triggers);
        const began = performance.now();
        await world.sql.query(statement, [String(time + 1)]);
        // The first of each has its plan to make.
        if (time % IN_A_ROW > 0) took[triggers].push(performance.now() - began);
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
    return [...rows, await signIns(world, Math.ceil(times / 10))];
  });
}

const IN_A_ROW = 10;

/** Ours; the foreign keys stay guarded. */
async function switchTriggers({ sql }: World, to: 'on' | 'off'): Promise<void> {
  const word = to === 'on' ? 'enable' : 'disable';
  for (const table of ['"user"', 'session']) {
    await sql.query(`alter table ${table} ${word} trigger user`);
  }
}

/** All that a person waits for: a real Better-Auth, with the triggers and with none. */
async function signIns(world: World, times: number): Promise<Row> {
  const { auth } = world;
  const person = { email: 'signs-in@bench.example', password: 'a long password', name: 'Ada' };
  await auth.signUp(person);
  const took: Record<'on' | 'off', number[]> = { on: [], off: [] };
  for (let time = 0; time < times * 2; time += 1) {
    const triggers = time % 2 === 0 ? 'on' : 'off';
    await switchTriggers(world, triggers);
    const began = performance.now();
    await auth.signIn(person);
    took[triggers].push(performance.now() - began);
  }
  await switchTriggers(world, 'on');
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
