import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { AppProcess } from '../support/app-process.ts';
import { FEED_CONNECTION, startTcpProxy } from '../support/tcp-proxy.ts';
import { type TestUser, signUp } from '../support/users.ts';
import type { Fault } from './fault.ts';
import type { FaultContext } from './fault-context.ts';

/** A cached user may be accepted for at most this long after the commit of a change. */
const BOUND_MS = 250;

const BAN = 'update "user" set banned = true where id = $1';
const UNBAN = 'update "user" set banned = false where id = $1';

let users: TestUser[];

async function signUpUsers(context: FaultContext, count: number): Promise<void> {
  users = [];
  for (let index = 0; index < count; index += 1) users.push(await signUp(context.system.auth));
}

function statusOf(context: FaultContext, { token }: TestUser, served?: AppProcess) {
  return context.send('/api/v1/auth/me', { token }, served).then(({ status }) => status);
}

/** Makes the service cache the user. Without a lease, the first request only wakes the feed. */
async function cache(context: FaultContext, user: TestUser, served?: AppProcess): Promise<void> {
  for (let time = 0; time < 3; time += 1) {
    const status = await statusOf(context, user, served);
    context.expect(status === 200, `a user who is not banned is accepted: ${status}`);
  }
}

/**
 * Sends requests until the user is refused, from before the change until after it. A request that
 * began later than the bound after the commit must not be accepted. A slow machine only makes the
 * requests rarer. Returns the longest time after the commit.
 */
async function refusalAfter(
  context: FaultContext,
  user: TestUser,
  change: () => Promise<unknown>,
  served?: AppProcess,
): Promise<number> {
  let committedAt = Number.POSITIVE_INFINITY;
  const changed = change().then(() => (committedAt = performance.now()));
  let last = 0;
  for (let refusals = 0; refusals < 3;) {
    const startedAt = performance.now();
    const status = await statusOf(context, user, served);
    if (status === 401 || status === 403) refusals += 1;
    else if (status === 200) last = Math.max(last, startedAt - committedAt);
    if (startedAt - committedAt > 10_000) break;
  }
  await changed;
  context.expect(last <= BOUND_MS, `refused ${BOUND_MS} ms after a change: ${Math.round(last)} ms`);
  return last;
}

export const bansWhileFeedIsCut: Fault = {
  name: 'bans while the connection of the change feed is cut at random',
  answers: [200],
  seconds: 0,
  start: async (context) => {
    const proxy = await startTcpProxy(() => context.system.port, FEED_CONNECTION);
    context.onClose(() => proxy.close());
    await context.serve({ DATABASE_URL: context.system.url(proxy.port) });
    await signUpUsers(context, 10);
    let stopped = false;
    context.onClose(() => (stopped = true));
    void (async () => {
      while (!stopped) {
        await sleep(Math.random() * 1500);
        proxy.cut = true;
        proxy.resetAll();
        await sleep(Math.random() * 300);
        proxy.cut = false;
      }
    })();
  },
  inject: async (context) => {
    const late: number[] = [];
    const rounds = context.long ? 100 : 15;
    for (let round = 0; round < rounds; round += 1) {
      const bans = users.map(async (user) => {
        await cache(context, user);
        const ban = async () => {
          await sleep(Math.random() * 300);
          await context.system.sql(BAN, [user.id]);
        };
        late.push(await refusalAfter(context, user, ban));
        await context.system.sql(UNBAN, [user.id]);
      });
      await Promise.all(bans);
    }
    const longest = Math.max(...late);
    context.note(`${late.length} bans, accepted for at most ${Math.round(longest)} ms after one`);
  },
  restore: () => undefined,
};

let paused: AppProcess;

export const pausedService: Fault = {
  name: 'service paused for 31 s (SIGSTOP), recorded changes deleted meanwhile',
  answers: [200],
  seconds: 31,
  start: async (context) => {
    await context.serve();
    paused = await context.serve();
    // The load must not use the paused service.
    context.services.pop();
    context.onClose(() => paused.end('SIGKILL'));
    await signUpUsers(context, 2);
  },
  inject: async (context) => {
    for (const user of users) await cache(context, user, paused);
    paused.child.kill('SIGSTOP');
    for (const { id } of users) await context.system.sql(BAN, [id]);
    // As another replica does with rows that are old enough.
    await context.system.sql(`delete from gatehouse.change where xid <> '0'`);
  },
  restore: async (context) => {
    paused.child.kill('SIGCONT');
    for (const user of users) {
      const status = await statusOf(context, user, paused);
      context.expect(status === 403, `a user who was banned during the pause: ${status}`);
    }
    // The first requests renew the lease. The cache must not serve the old entries again.
    await sleep(1000);
    for (const user of users) {
      const status = await statusOf(context, user, paused);
      context.expect(status === 403, `the same user a second later: ${status}`);
    }
  },
};

let open: Client;

export const longTransaction: Fault = {
  name: 'transaction open for a long time, with a ban and many changes',
  seconds: 0,
  start: async (context) => {
    await context.serve();
    await signUpUsers(context, 5);
  },
  inject: async (context) => {
    const [first, ...others] = users as [TestUser, ...TestUser[]];
    open = await context.system.connect();
    await open.query('begin');
    await open.query(BAN, [first.id]);
    for (let round = 0; round < (context.long ? 100 : 5); round += 1) {
      for (const user of others) {
        await cache(context, user);
        await refusalAfter(context, user, () => context.system.sql(BAN, [user.id]));
        await context.system.sql(UNBAN, [user.id]);
      }
    }
    await cache(context, first);
    const late = await refusalAfter(context, first, () => open.query('commit'));
    context.note(`accepted for ${Math.round(late)} ms after the commit of the long transaction`);
  },
  restore: () => open.end(),
};

export const bulkDeletion: Fault = {
  name: 'deletion of very many sessions in one statement',
  seconds: 0,
  start: async (context) => {
    await context.serve();
    await signUpUsers(context, 1);
  },
  inject: async (context) => {
    const [user] = users as [TestUser];
    const count = context.long ? 1_000_000 : 20_000;
    await context.system.sql(
      `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
       select 'old' || n, 'old' || n, $1, now() - interval '1 day', now(), now()
       from generate_series(1, $2::int) n`,
      [user.id, count],
    );
    await cache(context, user);
    const startedAt = performance.now();
    const late = await refusalAfter(context, user, () =>
      context.system.sql('delete from session where "userId" = $1', [user.id]),
    );
    context.note(
      `${count} sessions deleted in ${Math.round(performance.now() - startedAt)} ms, accepted for ${Math.round(late)} ms after the commit`,
    );
  },
  restore: () => undefined,
};

export const crashWithPrepared: Fault = {
  name: 'PostgreSQL killed right after a ban, and with a prepared ban',
  seconds: 2,
  start: async (context) => {
    await context.serve();
    await signUpUsers(context, 2);
  },
  inject: async (context) => {
    const [banned, prepared] = users as [TestUser, TestUser];
    for (const user of users) await cache(context, user);
    const client = await context.system.connect();
    await client.query('begin');
    await client.query(BAN, [prepared.id]);
    await client.query(`prepare transaction 'late'`);
    await refusalAfter(context, banned, async () => {
      await context.system.sql(BAN, [banned.id]);
      await context.system.killPostgres();
      await context.system.startPostgres();
      await context.system.untilPostgresAnswers();
    });
  },
  restore: async (context) => {
    const [, prepared] = users as [TestUser, TestUser];
    // Two requests, so that the second one would find the user in the cache.
    for (let time = 0; time < 2; time += 1) {
      await context.until(async () => (await statusOf(context, prepared)) === 200);
    }
    await refusalAfter(context, prepared, () => context.system.sql(`commit prepared 'late'`));
  },
};
