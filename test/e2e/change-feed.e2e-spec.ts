import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { FEED_CONNECTION, startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { migrate } from '../../src/cli/migrate.js';
import { triggerState } from '../../src/database/change-triggers.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { type TestUser, signUp } from '../support/users.js';
import { runBuilt } from '../support/built-program.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

const ME = '/api/v1/auth/me';

let stack: Stack;
beforeAll(async () => (stack = await startStack()));
afterAll(() => stack.end());

const meStatus = async ({ token }: { token: string }, gatehouse = stack.gatehouse) =>
  (await gatehouse.call(ME, { token })).status;

const feedState = async (gatehouse: RunningApp) =>
  (await gatehouse.http.get('/health')).body.parts.changeFeed.state as string;

/** Waits until the change feed is live. Before that every request queries the database. */
async function untilConnected(gatehouse = stack.gatehouse): Promise<void> {
  await until(() => feedState(gatehouse), 'connected');
}

/** Whether the user is cached. While the user table is locked, a query would not end. */
async function isCached({ token }: { token: string }, gatehouse = stack.gatehouse) {
  return whileUsersAreLocked(async () => {
    // A busy machine may let the lease expire in between. A second request then renews it.
    for (let attempt = 0; attempt < 3; attempt += 1) {
      if ((await meStatus({ token }, gatehouse)) === 200) return true;
    }
    return false;
  });
}

/** Locks the user table while `work` runs, so that only the cache can serve a request. */
async function whileUsersAreLocked<Result>(work: () => Promise<Result>): Promise<Result> {
  const client = new Client({ connectionString: stack.database.url });
  await client.connect();
  try {
    await client.query('begin; lock table "user" in access exclusive mode');
    return await work();
  } finally {
    await client.end();
  }
}

/** Signs up a user and makes Gatehouse cache it. */
async function signUpCached(gatehouse = stack.gatehouse, auth = stack.auth): Promise<TestUser> {
  const user = await signUp(auth);
  await untilConnected(gatehouse);
  expect(await meStatus(user, gatehouse)).toBe(200);
  return user;
}

const signUpAdmin = async () => {
  const user = await signUpCached();
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [user.id]);
  return user;
};

async function startReplica(variables: Record<string, string> = {}): Promise<RunningApp> {
  return startApp({
    DATABASE_URL: stack.database.url,
    BETTER_AUTH_URL: stack.auth.origin,
    ...variables,
  });
}

describe('cached users', () => {
  it('serves a cached user without the database', async () => {
    const ada = await signUpCached();
    expect(await isCached(ada)).toBe(true);
  });

  it('queries the database on every request with CHANGE_FEED=off', async () => {
    const replica = await startReplica({ CHANGE_FEED: 'off' });
    const ada = await signUp(stack.auth);
    expect(await meStatus(ada, replica)).toBe(200);
    expect(await feedState(replica)).toBe('off');
    expect(await isCached(ada, replica)).toBe(false);
    await replica.close();
  });

  it('caches no more users than USER_CACHE_MAX', async () => {
    const replica = await startReplica({ USER_CACHE_MAX: '1' });
    const ada = await signUpCached(replica);
    const bob = await signUpCached(replica);
    expect(await isCached(bob, replica)).toBe(true);
    expect(await isCached(ada, replica)).toBe(false);
    await replica.close();
  });

  it('accepts every token that a cached session is old enough for, and no other', async () => {
    const { id, session } = await signUpCached();
    // Within the same second Better-Auth would issue the same token.
    await sleep(1100);
    const later = { token: await stack.auth.tokenFor(session) };
    expect(await isCached(later)).toBe(true);
    await stack.database.sql(
      `update session set "createdAt" = "createdAt" + interval '1 hour' where "userId" = $1`,
      [id],
    );
    await until(() => meStatus(later), 401);
  });

  it('reads a cached user again after CACHE_MAX_AGE_SECONDS even when no trigger fired', async () => {
    const replica = await startReplica({ CACHE_MAX_AGE_SECONDS: '2' });
    const ada = await signUpCached(replica);
    expect(await isCached(ada, replica)).toBe(true);
    await stack.database.sql('set session_replication_role = replica');
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    await stack.database.sql('set session_replication_role = origin');
    // Each request until then is a cache hit, and none of them extends the age.
    await until(() => meStatus(ada, replica), 403);
    expect(await feedState(replica)).toBe('connected');
    await replica.close();
  });

  it('refuses a cached user once the session expires', async () => {
    const ada = await signUpCached();
    const soon = `now() + interval '2 seconds'`;
    await stack.database.sql(`update session set "expiresAt" = ${soon} where "userId" = $1`, [
      ada.id,
    ]);
    await until(() => meStatus(ada), 200);
    await until(() => meStatus(ada), 401);
  });
});

describe('changes in the database', () => {
  const ban = 'update "user" set banned = true where id = $1';
  const sqlChanges: [string, string, number][] = [
    ['a ban by SQL', ban, 403],
    ['the deletion of the user', 'delete from "user" where id = $1', 401],
    ['the deletion of the sessions', 'delete from session where "userId" = $1', 401],
    [
      'the expiry of the sessions',
      `update session set "expiresAt" = now() - interval '1 s' where "userId" = $1`,
      401,
    ],
    [
      'the transfer of the sessions to another user',
      `update session set "userId" = (select id from "user" where id <> $1 limit 1) where "userId" = $1`,
      401,
    ],
  ];

  describe.each([
    ['a token without a session id', () => stack.auth],
    ['a token with a session id', () => stack.authWithSid],
  ])('cached user of %s', (tokenKind, auth) => {
    it.each(sqlChanges)(
      `refuses the cached user of ${tokenKind} after %s`,
      async (_name, sql, status) => {
        const ada = await signUpCached(stack.gatehouse, auth());
        await stack.database.sql(sql, [ada.id]);
        await until(() => meStatus(ada), status);
      },
    );

    it(`refuses the cached user of ${tokenKind} after a truncation of all sessions`, async () => {
      const ada = await signUpCached(stack.gatehouse, auth());
      await stack.database.sql('truncate session');
      await until(() => meStatus(ada), 401);
    });

    it(`refuses the cached user of ${tokenKind} after the deletion of very many sessions`, async () => {
      const ada = await signUpCached(stack.gatehouse, auth());
      await stack.database.sql(
        `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
         select 'many' || n || $1, 'many' || n || $1, $1, now(), now(), now() from generate_series(1, 1500) n`,
        [ada.id],
      );
      await stack.database.sql('delete from session where "userId" = $1', [ada.id]);
      await until(() => meStatus(ada), 401);
    });

    it(`refuses the cached user of ${tokenKind} after a ban by another replica`, async () => {
      const replica = await startReplica();
      const ada = await signUpCached(replica, auth());
      const { token } = await signUpAdmin();
      await until(async () => (await stack.gatehouse.call('/api/v1/users', { token })).status, 200);
      expect(await meStatus(ada, replica)).toBe(200);
      const { status } = await stack.gatehouse.call(`/api/v1/users/${ada.id}/ban`, {
        method: 'POST',
        token,
        body: {},
      });
      expect(status).toBe(200);
      await until(() => meStatus(ada, replica), 403);
      await replica.close();
    });
  });

  it('applies a change of more users than a poll reads to the last of them', async () => {
    await stack.database.sql(
      `insert into "user" (id, name, email, "emailVerified", "updatedAt")
       select 'crowd' || n, 'Crowd', n || '@crowd.example', false, now() from generate_series(1, 1500) n`,
    );
    const ada = await signUpCached();
    await stack.database.sql(
      `update "user" u set banned = true
       from (select id from "user" where id like 'crowd%' or id = $1 order by id = $1) crowd
       where u.id = crowd.id`,
      [ada.id],
    );
    await until(() => meStatus(ada), 403);
  });

  it('applies a change that it missed after a gap, and deletes the rows from before it', async () => {
    const [old, recent] = [await signUp(stack.auth), await signUp(stack.auth)];
    await stack.database.sql(ban, [old.id]);
    const replica = await startReplica();
    const ada = await signUpCached(replica);
    await stack.database.sql(ban, [recent.id]);
    // Another replica deleted the row while this one did not poll.
    await stack.database.sql('begin');
    await stack.database.sql(ban, [ada.id]);
    await stack.database.sql('delete from gatehouse.change where user_id = $1', [ada.id]);
    await stack.database.sql('commit');
    const [poll] = await stack.database.sql<{ definition: string }>(
      `select pg_get_functiondef('gatehouse.read_changes'::regproc) as definition`,
    );
    const definition = poll?.definition ?? '';
    const clock = 'statement_timestamp()';
    await stack.database.sql(definition.replace(clock, `(${clock} + interval '61 s')`));
    const countRows = async (condition: string) => {
      const [row] = await stack.database.sql<{ count: number }>(
        `select count(*)::int as count from gatehouse.change where ${condition}`,
      );
      return row?.count;
    };
    try {
      await until(() => meStatus(ada, replica), 403);
      await until(() => countRows(`user_id = '${old.id}'`), 0);
      expect(await countRows(`user_id = '${recent.id}'`)).toBe(1);
      expect(await countRows(`xid = '0'`)).toBe(1);
    } finally {
      await stack.database.sql(definition);
      await replica.close();
    }
  });

  it('applies both a granted and a removed role to a cached user', async () => {
    const ada = await signUpCached();
    const list = async () => (await stack.gatehouse.call('/api/v1/users', ada)).status;
    expect(await list()).toBe(403);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [ada.id]);
    await until(list, 200);
    await stack.database.sql(`update "user" set role = 'user' where id = $1`, [ada.id]);
    await until(list, 403);
  });

  it('keeps serving a cached user whose ban was rolled back', async () => {
    const ada = await signUpCached();
    await stack.database.sql('begin');
    await stack.database.sql(ban, [ada.id]);
    await stack.database.sql('rollback');
    expect(await meStatus(ada)).toBe(200);
  });

  it('applies a change of a transaction that commits after a later one', async () => {
    const [ada, bob] = [await signUpCached(), await signUpCached()];
    await stack.database.sql('begin');
    await stack.database.sql(ban, [ada.id]);
    const other = new Client({ connectionString: stack.database.directUrl });
    await other.connect();
    await other.query(ban, [bob.id]);
    await other.end();
    await until(() => meStatus(bob), 403);
    expect(await meStatus(ada)).toBe(200);
    await stack.database.sql('commit');
    await until(() => meStatus(ada), 403);
  });

  describe('recorded changes', () => {
    const recorded = async (work: () => Promise<unknown>) => {
      const [{ at } = {}] = await stack.database.sql('select pg_current_snapshot()::text as at');
      await work();
      const rows = await stack.database.sql(
        `select user_id as id from gatehouse.change where xid <> '0'
          and not pg_visible_in_snapshot(xid, $1) order by ctid`,
        [at],
      );
      return rows.map(({ id }) => id);
    };
    const sql = (text: string, ...values: unknown[]) => stack.database.sql(text, values);

    it('records nothing for a sign-in, a refresh, and session columns of other programs', async () => {
      const ada = await signUp(stack.auth);
      await stack.database.sql('alter table session add column theme text');
      const ids = await recorded(async () => {
        expect(await stack.auth.signIn(ada)).toMatchObject({ user: { id: ada.id } });
        await sql(
          `update session set "updatedAt" = now(), "expiresAt" = "expiresAt" + interval '1 day'
            where "userId" = $1`,
          ada.id,
        );
        await sql(`update session set theme = 'dark' where "userId" = $1`, ada.id);
        await sql(`update "user" set name = 'Nobody' where id = 'nobody'`);
      });
      await stack.database.sql('alter table session drop column theme');
      expect(ids).toEqual([]);
    });

    it.each([
      ['user', `name = 'Countess'`],
      ['user', `email = 'countess@' || id || '.example'`],
      ['user', `image = 'https://example.com/a.png'`],
      ['user', `"emailVerified" = not "emailVerified"`],
      ['user', `role = 'support'`],
      ['user', 'banned = true'],
      ['user', `"banReason" = 'spam'`],
      ['user', `"banExpires" = now()`],
      ['user', `"updatedAt" = now()`],
      ['user', `"createdAt" = now()`],
      ['session', `"expiresAt" = "expiresAt" - interval '1 second'`],
      ['session', `"createdAt" = now()`],
      ['session', `"ipAddress" = '203.0.113.9'`],
      ['session', `"userAgent" = 'other'`],
      ['session', `"impersonatedBy" = 'somebody'`],
      ['session', `token = 'other-' || id`],
      ['session', `id = 'other-' || id`],
    ])('records a change of a %s: %s', async (table, change) => {
      const ada = await signUp(stack.auth);
      const key = table === 'user' ? 'id' : '"userId"';
      const ids = await recorded(() =>
        sql(`update "${table}" set ${change} where ${key} = $1`, ada.id),
      );
      expect(ids).toEqual([ada.id]);
    });

    it('records each row of a statement, nothing of a rollback, and one row for a truncation', async () => {
      const { id } = await signUp(stack.auth);
      const shorten = `update session set "expiresAt" = "expiresAt" - interval '1 s' where "userId" = $1`;
      await sql(
        `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
          select n || $1, n || $1, $1, now(), now(), now() from generate_series(1, 2) n`,
        id,
      );
      expect(await recorded(() => sql(shorten, id))).toEqual([id, id, id]);
      const undone = await recorded(async () => {
        await sql('begin; savepoint here');
        await sql(shorten, id);
        await sql('rollback to here; commit');
      });
      expect(undone).toEqual([]);
      expect(await recorded(() => sql('delete from session where "userId" = $1', id))).toEqual([
        id,
        id,
        id,
      ]);
      expect(await recorded(() => sql('truncate session'))).toEqual([null]);
    });
  });
});

describe('changes by the same process', () => {
  it('applies its own change to the next request, however late the poll reads it', async () => {
    const proxy = await startFeedProxy();
    const replica = await startReplica({ DATABASE_URL: proxiedUrl(proxy) });
    const { token } = await signUpAdmin();
    await untilConnected(replica);
    proxy.delayMs = 200;
    for (let round = 0; round < 5; round += 1) {
      const ada = await signUp(stack.auth);
      expect(await meStatus(ada, replica)).toBe(200);
      await replica.call(`/api/v1/users/${ada.id}/ban`, { method: 'POST', token, body: {} });
      expect(await meStatus(ada, replica)).toBe(403);
      await replica.call(`/api/v1/users/${ada.id}/ban`, { method: 'DELETE', token });
      const signedInAgain = {
        token: await stack.auth.tokenFor((await stack.auth.signIn(ada)).sessionToken),
      };
      expect(await meStatus(signedInAgain, replica)).toBe(200);
      await replica.call(`/api/v1/users/${ada.id}/sessions`, { method: 'DELETE', token });
      expect(await meStatus(signedInAgain, replica)).toBe(401);
      const last = await signUp(stack.auth);
      expect(await meStatus(last, replica)).toBe(200);
      const body = { filter: { userId: last.id } };
      await replica.call('/api/v1/sessions/revocations', { method: 'POST', token, body });
      expect(await meStatus(last, replica)).toBe(401);
    }
    await replica.close();
    proxy.close();
  });
});

/** Only the connection of the change feed passes through the faults of this proxy. */
function startFeedProxy(): Promise<TcpProxy> {
  return startTcpProxy(() => Number(new URL(stack.database.url).port), FEED_CONNECTION);
}

function proxiedUrl(proxy: TcpProxy): string {
  const url = new URL(stack.database.url);
  url.hostname = '127.0.0.1';
  url.port = String(proxy.port);
  return url.href;
}

describe('interrupted change feed', () => {
  let proxy: TcpProxy;
  let replica: RunningApp;
  beforeEach(async () => {
    proxy = await startFeedProxy();
    replica = await startReplica({ DATABASE_URL: proxiedUrl(proxy) });
    await untilConnected(replica);
  });
  afterEach(async () => {
    await replica.close();
    proxy.close();
  });

  it('bypasses the cache while the change feed is down, and discards old entries afterwards', async () => {
    const ada = await signUpCached(replica);
    proxy.cut = true;
    proxy.resetAll();
    await until(() => feedState(replica), 'disconnected');
    expect(await isCached(ada, replica)).toBe(false);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    expect(await meStatus(ada, replica)).toBe(403);
    await stack.database.sql('update "user" set banned = false where id = $1', [ada.id]);
    expect(await meStatus(ada, replica)).toBe(200);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    proxy.cut = false;
    await untilConnected(replica);
    expect(await meStatus(ada, replica)).toBe(403);
  });

  it('bypasses the cache while the answers of the polls arrive later than the lease lasts', async () => {
    const ada = await signUpCached(replica);
    expect(await isCached(ada, replica)).toBe(true);
    proxy.delayMs = 400;
    await sleep(1000);
    expect(await feedState(replica)).toBe('connected');
    expect(await isCached(ada, replica)).toBe(false);
  });

  it('applies a change although the connection of the change feed has gone silent', async () => {
    const ada = await signUpCached(replica);
    proxy.delayMs = 20_000;
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    await until(() => meStatus(ada, replica), 403);
    await until(() => feedState(replica), 'disconnected');
    proxy.delayMs = 0;
    await untilConnected(replica);
  });

  it('empties the cache after a crash that its connection survives', async () => {
    const ada = await signUpCached();
    // A crash empties the table before the row of the ban is read. PgBouncer hides it otherwise.
    await stack.database.sql('begin');
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    await stack.database.sql('delete from gatehouse.change');
    await stack.database.sql('commit');
    await until(() => meStatus(ada), 403);
    const errors = stack.gatehouse.lines.map((line) => line['error']);
    expect(errors).toContain(
      'PostgreSQL lost changes in a crash, or another server has its address',
    );
    await untilConnected();
  });

  it('bypasses the cache while the triggers are missing, until a migration restores them', async () => {
    const ada = await signUpCached(replica);
    await stack.database.sql('drop trigger gatehouse_record_update on "user"');
    await until(() => feedState(replica), 'disconnected');
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    expect(await meStatus(ada, replica)).toBe(403);
    expect(replica.lines.map((line) => line['error'])).toContain(
      'its triggers are missing: npm run migrate',
    );
    const repaired = await migrate(parseEnvironment({ DATABASE_URL: stack.database.directUrl }));
    expect(repaired).toEqual(['the triggers of the change feed, which were missing or obsolete']);
    await untilConnected(replica);
    expect(await migrate(parseEnvironment({ DATABASE_URL: stack.database.directUrl }))).toEqual([]);
  });
});

describe('changes that fire no ordinary trigger', () => {
  it.each([
    [
      'by a writer with session_replication_role = replica',
      `set session_replication_role = replica`,
      `reset session_replication_role`,
    ],
    [
      'while the triggers are disabled within one transaction',
      'begin; alter table "user" disable trigger gatehouse_record_update',
      'alter table "user" enable always trigger gatehouse_record_update; commit',
    ],
  ])('applies a ban %s to a cached user', async (_name, before, after) => {
    const ada = await signUpCached();
    await stack.database.sql(before);
    await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
    await stack.database.sql(after);
    await until(() => meStatus(ada), 403);
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
      'alter table "user" enable trigger gatehouse_record_delete',
      'alter table "user" enable always trigger gatehouse_record_delete',
      /its triggers are missing/,
    ],
    [
      'a logical replication subscription',
      `create subscription sub_of_test connection 'dbname=nowhere' publication p with (connect = false);
       insert into pg_subscription_rel select oid, '"user"'::regclass, 'r' from pg_subscription where subname = 'sub_of_test'`,
      `delete from pg_subscription_rel;
       alter subscription sub_of_test set (slot_name = none); drop subscription sub_of_test`,
      /logical replication into "user"/,
    ],
  ])('bypasses the cache when a table has %s', async (_name, create, drop, reason) => {
    const ada = await signUpCached();
    const before = stack.gatehouse.lines.length;
    await stack.database.sql('set allow_system_table_mods = on');
    await stack.database.sql(create);
    try {
      await until(() => feedState(stack.gatehouse), 'disconnected');
      const errors = stack.gatehouse.lines.slice(before).map((line) => String(line['error']));
      expect(errors).toContainEqual(expect.stringMatching(reason));
      expect(await isCached(ada)).toBe(false);
      const { stdout, code } = await runBuilt('src/cli/doctor.js', {
        DATABASE_URL: stack.database.url,
      });
      expect(code).toBe(0);
      expect(stdout).toMatch(reason);
      expect(stdout).toContain('warning The change feed cannot be used');
    } finally {
      await stack.database.sql(drop);
    }
    await untilConnected();
  });

  it('checks the triggers of the change feed without superuser rights', async () => {
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
