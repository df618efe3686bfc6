import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { migrate } from '../../src/cli/migrate.js';
import { triggerState } from '../../src/database/change-triggers.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { type TestUser, signUp } from '../support/users.js';
import { createDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

const ME = '/api/v1/auth/me';

let stack: Stack;
beforeAll(async () => (stack = await startStack()));
afterAll(() => stack.end());

const ask = async ({ token }: { token: string }, gatehouse = stack.gatehouse) =>
  (await gatehouse.call(ME, { token })).status;

const feedOf = async (gatehouse: RunningApp) =>
  (await gatehouse.http.get('/health')).body.parts.changeFeed.state as string;

/** Resolves when it listens: until then the database is asked each time. */
async function listening(gatehouse = stack.gatehouse): Promise<void> {
  await until(() => feedOf(gatehouse), 'listening');
}

/** Nobody can read the user table meanwhile: what is answered comes from memory. */
async function whileNobodyReads<Result>(work: () => Promise<Result>): Promise<Result> {
  const client = new Client({ connectionString: stack.database.url });
  await client.connect();
  try {
    await client.query('begin; lock table "user" in access exclusive mode');
    return await work();
  } finally {
    await client.end();
  }
}

/** Somebody whom Gatehouse remembers. */
async function remembered(gatehouse = stack.gatehouse, auth = stack.auth): Promise<TestUser> {
  const person = await signUp(auth);
  await listening(gatehouse);
  expect(await ask(person, gatehouse)).toBe(200);
  return person;
}

const admin = async () => {
  const person = await remembered();
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [person.id]);
  return person;
};

async function startReplica(variables: Record<string, string> = {}): Promise<RunningApp> {
  return startApp({
    DATABASE_URL: stack.database.url,
    BETTER_AUTH_URL: stack.auth.origin,
    ...variables,
  });
}

describe('who is remembered', () => {
  it('is answered without the database', async () => {
    const ada = await remembered();
    expect(await whileNobodyReads(() => ask(ada))).toBe(200);
  });

  it('is nobody with CHANGE_FEED=off', async () => {
    const replica = await startReplica({ CHANGE_FEED: 'off' });
    const ada = await signUp(stack.auth);
    expect(await ask(ada, replica)).toBe(200);
    expect(await feedOf(replica)).toBe('off');
    expect(await whileNobodyReads(() => ask(ada, replica))).toBe(503);
    await replica.close();
  });

  it('is no more than USER_CACHE_MAX', async () => {
    const replica = await startReplica({ USER_CACHE_MAX: '1' });
    const ada = await remembered(replica);
    const bob = await remembered(replica);
    expect(await whileNobodyReads(() => ask(bob, replica))).toBe(200);
    expect(await whileNobodyReads(() => ask(ada, replica))).toBe(503);
    await replica.close();
  });

  it('is remembered with any token that the same session is old enough for, and with no other', async () => {
    const { id, session } = await remembered();
    // In another second, or it would be the same token.
    await sleep(1100);
    const later = { token: await stack.auth.tokenFor(session) };
    expect(await whileNobodyReads(() => ask(later))).toBe(200);
    await stack.database.sql(
      `update session set "createdAt" = "createdAt" + interval '1 hour' where "userId" = $1`,
      [id],
    );
    await until(() => ask(later), 401);
  });

  it('is read again after CACHE_MAX_AGE_SECONDS, though no trigger told of a change', async () => {
    const replica = await startReplica({ CACHE_MAX_AGE_SECONDS: '2' });
    const ada = await remembered(replica);
    expect(await whileNobodyReads(() => ask(ada, replica))).toBe(200);
    await stack.database.sql('set session_replication_role = replica');
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    await stack.database.sql('set session_replication_role = origin');
    // Each request until then is a hit, and none of them extends the age.
    await until(() => ask(ada, replica), 403);
    expect(await feedOf(replica)).toBe('listening');
    await replica.close();
  });

  it('is refused when time runs out, which nobody tells', async () => {
    const ada = await remembered();
    const soon = `now() + interval '2 seconds'`;
    await stack.database.sql(`update session set "expiresAt" = ${soon} where "userId" = $1`, [
      ada.id,
    ]);
    await until(() => ask(ada), 200);
    await until(() => ask(ada), 401);
  });
});

describe('a change', () => {
  const ban = 'update "user" set banned = true where id = $1';
  const byHand: [string, string, number][] = [
    ['a ban', ban, 403],
    ['a user removed', 'delete from "user" where id = $1', 401],
    ['sessions ended', 'delete from session where "userId" = $1', 401],
    [
      'sessions that expire',
      `update session set "expiresAt" = now() - interval '1 s' where "userId" = $1`,
      401,
    ],
    [
      'sessions given away',
      `update session set "userId" = (select id from "user" where id <> $1 limit 1) where "userId" = $1`,
      401,
    ],
  ];

  describe.each([
    ['a token that names no session', () => stack.auth],
    ['a token that names its session', () => stack.authWithSid],
  ])('with %s', (_, auth) => {
    it.each(byHand)('by hand is seen: %s', async (_name, sql, status) => {
      const ada = await remembered(stack.gatehouse, auth());
      await stack.database.sql(sql, [ada.id]);
      await until(() => ask(ada), status, 2);
    });

    it('of every row at once is seen', async () => {
      const ada = await remembered(stack.gatehouse, auth());
      await stack.database.sql('truncate session');
      await until(() => ask(ada), 401, 2);
    });

    it('of very many rows is seen', async () => {
      const ada = await remembered(stack.gatehouse, auth());
      await stack.database.sql(
        `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
         select 'many' || n || $1, 'many' || n || $1, $1, now(), now(), now() from generate_series(1, 1500) n`,
        [ada.id],
      );
      await stack.database.sql('delete from session where "userId" = $1', [ada.id]);
      await until(() => ask(ada), 401, 2);
    });

    it('by another replica is seen', async () => {
      const replica = await startReplica();
      const ada = await remembered(replica, auth());
      const { token } = await admin();
      await until(async () => (await stack.gatehouse.call('/api/v1/users', { token })).status, 200);
      expect(await ask(ada, replica)).toBe(200);
      const { status } = await stack.gatehouse.call(`/api/v1/users/${ada.id}/ban`, {
        method: 'POST',
        token,
        body: {},
      });
      expect(status).toBe(200);
      await until(() => ask(ada, replica), 403, 2);
      await replica.close();
    });
  });

  it('of a role is seen, both ways', async () => {
    const ada = await remembered();
    const list = async () => (await stack.gatehouse.call('/api/v1/users', ada)).status;
    expect(await list()).toBe(403);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [ada.id]);
    await until(list, 200, 2);
    await stack.database.sql(`update "user" set role = 'user' where id = $1`, [ada.id]);
    await until(list, 403, 2);
  });

  it('that is undone before anybody saw it leaves nobody out', async () => {
    const ada = await remembered();
    await stack.database.sql('begin');
    await stack.database.sql(ban, [ada.id]);
    await stack.database.sql('rollback');
    expect(await ask(ada)).toBe(200);
  });

  it('is told as one message for each user, and a new session is not told at all', async () => {
    const ada = await signUp(stack.auth);
    const told: string[] = [];
    const listener = new Client({ connectionString: stack.database.directUrl });
    listener.on('notification', ({ payload = '' }) => void told.push(payload));
    await listener.connect();
    await listener.query('listen gatehouse_change');
    const session = await stack.auth.signIn(ada);
    expect(session).toMatchObject({ user: { id: ada.id } });
    await stack.database.sql(`update "user" set name = 'Ada' where id = $1`, [ada.id]);
    await stack.database.sql(`update session set "updatedAt" = now() where "userId" = $1`, [
      ada.id,
    ]);
    await stack.database.sql(`update "user" set name = 'Nobody' where id = 'nobody'`);
    await stack.database.sql('select pg_notify($1, $2)', ['gatehouse_change', 'end of the test']);
    await until(() => told.at(-1), 'end of the test');
    expect(told.filter((message) => !message.startsWith('here'))).toEqual([
      `user ${ada.id}`,
      `user ${ada.id}`,
      'end of the test',
    ]);
    await listener.end();
  });
});

describe('a change made here', () => {
  it('is seen by the next request, however late PostgreSQL tells of it', async () => {
    const proxy = await startTcpProxy(() => Number(new URL(stack.database.directUrl).port));
    const replica = await startReplica({ DATABASE_DIRECT_URL: through(proxy) });
    const { token } = await admin();
    await listening(replica);
    proxy.delayMs = 250;
    for (let round = 0; round < 5; round += 1) {
      const ada = await signUp(stack.auth);
      expect(await ask(ada, replica)).toBe(200);
      await replica.call(`/api/v1/users/${ada.id}/ban`, { method: 'POST', token, body: {} });
      expect(await ask(ada, replica)).toBe(403);
      await replica.call(`/api/v1/users/${ada.id}/ban`, { method: 'DELETE', token });
      const again = {
        token: await stack.auth.tokenFor((await stack.auth.signIn(ada)).sessionToken),
      };
      expect(await ask(again, replica)).toBe(200);
      await replica.call(`/api/v1/users/${ada.id}/sessions`, { method: 'DELETE', token });
      expect(await ask(again, replica)).toBe(401);
    }
    await replica.close();
    proxy.close();
  });
});

function through(proxy: TcpProxy): string {
  const url = new URL(stack.database.directUrl);
  url.hostname = '127.0.0.1';
  url.port = String(proxy.port);
  return url.href;
}

describe('while nothing can be told', () => {
  let proxy: TcpProxy;
  let replica: RunningApp;
  beforeEach(async () => {
    proxy = await startTcpProxy(() => Number(new URL(stack.database.directUrl).port));
    replica = await startReplica({ DATABASE_DIRECT_URL: through(proxy) });
    await listening(replica);
  });
  afterEach(async () => {
    await replica.close();
    proxy.close();
  });

  it('nothing is answered from memory, and what was remembered is not believed afterwards', async () => {
    const ada = await remembered(replica);
    proxy.cut = true;
    proxy.resetAll();
    await until(() => feedOf(replica), 'away');
    expect(await whileNobodyReads(() => ask(ada, replica))).toBe(503);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    expect(await ask(ada, replica)).toBe(403);
    await stack.database.sql('update "user" set banned = false where id = $1', [ada.id]);
    expect(await ask(ada, replica)).toBe(200);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    proxy.cut = false;
    await listening(replica);
    expect(await ask(ada, replica)).toBe(403);
  });

  it('because the line has gone silent, a change is seen all the same', async () => {
    const ada = await remembered(replica);
    proxy.delayMs = 20_000;
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    await until(() => ask(ada, replica), 403, 4);
    expect(await feedOf(replica)).toBe('away');
    proxy.delayMs = 0;
    await listening(replica);
  });

  it('because the triggers are gone, a change is seen; migrate makes them again', async () => {
    const ada = await remembered(replica);
    await stack.database.sql('drop trigger gatehouse_announce_update on "user"');
    await until(() => feedOf(replica), 'away');
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    expect(await ask(ada, replica)).toBe(403);
    expect(replica.lines.map((line) => line['error'])).toContain(
      'its triggers are missing: npm run migrate',
    );
    const repaired = await migrate(parseEnvironment({ DATABASE_URL: stack.database.directUrl }));
    expect(repaired).toEqual(['the triggers of the change feed, which were missing']);
    await listening(replica);
    expect(await migrate(parseEnvironment({ DATABASE_URL: stack.database.directUrl }))).toEqual([]);
  });
});

describe('a change that fires no ordinary trigger', () => {
  it.each([
    [
      'by a writer with session_replication_role = replica',
      `set session_replication_role = replica`,
      `reset session_replication_role`,
    ],
    [
      'while the triggers are disabled within one transaction',
      'begin; alter table "user" disable trigger gatehouse_announce_update',
      'alter table "user" enable always trigger gatehouse_announce_update; commit',
    ],
  ])('is seen: %s', async (_name, before, after) => {
    const ada = await remembered();
    await stack.database.sql(before);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    await stack.database.sql(after);
    await until(() => ask(ada), 403, 2);
  });

  it.each([
    [
      'a child table',
      'create table child () inherits ("user")',
      'drop table child',
      /child inherits from "user"/,
    ],
    [
      'a parent table',
      'create table parent (id text not null); alter table session inherit parent',
      'alter table session no inherit parent; drop table parent',
      /session inherits from parent/,
    ],
    [
      'a trigger that is not ENABLE ALWAYS',
      'alter table "user" enable trigger gatehouse_announce_delete',
      'alter table "user" enable always trigger gatehouse_announce_delete',
      /its triggers are missing/,
    ],
    [
      'a subscription of logical replication',
      `create subscription sub_of_test connection 'dbname=nowhere' publication p with (connect = false);
       insert into pg_subscription_rel select oid, '"user"'::regclass, 'r' from pg_subscription where subname = 'sub_of_test'`,
      `delete from pg_subscription_rel;
       alter subscription sub_of_test set (slot_name = none); drop subscription sub_of_test`,
      /logical replication into "user"/,
    ],
  ])(
    'is expected with %s, so nothing is answered from memory',
    async (_name, create, drop, reason) => {
      const ada = await remembered();
      const before = stack.gatehouse.lines.length;
      await stack.database.sql('set allow_system_table_mods = on');
      await stack.database.sql(create);
      try {
        await until(() => feedOf(stack.gatehouse), 'away');
        const errors = stack.gatehouse.lines.slice(before).map((line) => String(line['error']));
        expect(errors).toContainEqual(expect.stringMatching(reason));
        expect(await whileNobodyReads(() => ask(ada))).toBe(503);
        const { stdout, code } = await runBuilt('src/cli/doctor.js', {
          DATABASE_URL: stack.database.url,
        });
        expect(code).toBe(0);
        expect(stdout).toMatch(reason);
        expect(stdout).toContain('remark  The change feed cannot be used');
      } finally {
        await stack.database.sql(drop);
      }
      await listening();
    },
  );

  it('is nothing that a user without rights of a superuser cannot find out', async () => {
    const role = `plain_${new URL(stack.database.url).pathname.slice(1)}`;
    await stack.database.sql(`create role ${role}`);
    await stack.database.sql(`set role ${role}`);
    const [state] = await stack.database.sql(
      triggerState({
        schema: 'public',
        schemas: [],
        elsewhere: [],
        errors: [],
        warnings: [],
        tables: {
          user: { name: 'user', columns: { id: { name: 'id', type: 'text' } } },
          session: { name: 'session', columns: { userId: { name: 'userId', type: 'text' } } },
        },
      }),
    );
    await stack.database.sql('reset role');
    await stack.database.sql(`drop role ${role}`);
    expect(state).toMatchObject({ missing: 0, relatives: null, subscribed: null });
  });
});

it('a DATABASE_DIRECT_URL that is another database is not believed', async () => {
  const other = await createDatabase();
  const replica = await startReplica({ DATABASE_DIRECT_URL: other.url });
  const ada = await signUp(stack.auth);
  await until(
    () =>
      replica.lines.some((line) => String(line['error']).includes('does not receive the notif')),
    true,
  );
  expect(await feedOf(replica)).toBe('away');
  expect(await ask(ada, replica)).toBe(200);
  expect(await whileNobodyReads(() => ask(ada, replica))).toBe(503);
  await replica.close();
  await other.drop();
});
