import { Client } from 'pg';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack({}, { ROLES: 'user,support,admin' })));
afterAll(() => stack.end());

const callUsers = (by: { token: string }, method: string, path: string, body?: unknown) =>
  stack.gatehouse.call(`/api/v1/users/${path}`, {
    method,
    token: by.token,
    ...(body === undefined ? {} : { body }),
  });

const sidOf = ({ token }: { token: string }) => String(claimsOf(token)['sid']);

async function newAdmin(auth = stack.authWithSid): Promise<TestUser> {
  const user = await signUp(auth, 'Admin');
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [user.id]);
  return user;
}

/** Returns everything that a change to this user can affect. */
const stateOf = (id: string) =>
  stack.database.sql(
    `select to_jsonb(u) as user,
      (select array_agg(s.id order by s.id) from session s where "userId" = u.id) as sessions,
      (select count(*)::int from gatehouse.audit_event where target_user_id = u.id) as events
     from "user" u where id = $1`,
    [id],
  );

const countLockWaits = async () => {
  const [row] = await stack.database.sql<{ count: number }>(
    `select count(*)::int as count from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'`,
  );
  return row?.count;
};

const newClient = () => new Client({ connectionString: stack.database.directUrl });

/** Sends the change while another connection locks the target. Returns the response. */
async function whileLocked(
  change: (target: TestUser) => ReturnType<typeof callUsers>,
  target: TestUser,
  meanwhile: () => Promise<unknown>,
) {
  const other = newClient();
  await other.connect();
  try {
    await other.query('begin');
    await other.query('select 1 from "user" where id = $1 for update', [target.id]);
    await other.query('select 1 from session where "userId" = $1 for update', [target.id]);
    const answer = change(target);
    await until(countLockWaits, 1);
    await meanwhile();
    await other.query('commit');
    return await answer;
  } finally {
    await other.end();
  }
}

interface Imuseration {
  id: string;
  token: string;
  session: string;
  sid: string;
}

async function impersonate(
  admin: TestUser,
  user: TestUser,
  auth = stack.authWithSid,
): Promise<Imuseration> {
  const { session } = await auth.post<{ session: { token: string; id: string } }>(
    '/admin/impersonate-user',
    { userId: user.id },
    admin.session,
  );
  const token = await auth.tokenFor(session.token);
  return { id: user.id, token, session: session.token, sid: session.id };
}

describe('change by an admin with a token without a session id', () => {
  const CHANGES: [string, string, string, object | undefined][] = [
    ['changes a name', 'PATCH', '', { name: 'Changed' }],
    ['gives a role', 'PUT', '/role', { role: 'support' }],
    ['bans', 'POST', '/ban', { reason: 'spam' }],
    ['lifts a ban', 'DELETE', '/ban', undefined],
    ['ends all sessions', 'DELETE', '/sessions', undefined],
    ['ends a session', 'DELETE', '/sessions/{sessionId}', undefined],
  ];

  it.each(CHANGES)(
    'refuses an admin whose token without a session id lost its session, who %s',
    async (_what, method, path, body) => {
      const [admin, target] = [await newAdmin(stack.auth), await signUp(stack.authWithSid)];
      const before = await stateOf(target.id);
      const route = path.replace('{sessionId}', sidOf(target));
      const answer = await whileLocked(
        ({ id }) => callUsers(admin, method, `${id}${route}`, body),
        target,
        async () => {
          await stack.database.sql(`delete from session where "userId" = $1`, [admin.id]);
          // A session that is newer than the token does not make it valid.
          await stack.database.sql(
            `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
             values ($1, 'token-' || md5($1), $2, now() + interval '1 day', now() + interval '1 minute', now())`,
            [`newer-${admin.id}`, admin.id],
          );
        },
      );
      expect([answer.status, answer.body.code]).toEqual([401, 'AUTH_SESSION_REVOKED']);
      expect(await stateOf(target.id)).toEqual(before);
    },
  );

  it('accepts a token without a session id while its session exists', async () => {
    const [admin, target] = [await newAdmin(stack.auth), await signUp(stack.authWithSid)];
    const answer = await whileLocked(
      ({ id }) => callUsers(admin, 'DELETE', `${id}/sessions`),
      target,
      async () => undefined,
    );
    expect([answer.status, answer.body.revoked]).toEqual([200, 1]);
  });
});

describe('change in an impersonated session that waits for a row lock', () => {
  const CHANGES: [string, string, string, object | undefined][] = [
    ['changes a name', 'PATCH', '', { name: 'Changed' }],
    ['ends all sessions', 'DELETE', '/sessions', undefined],
    ['ends a session', 'DELETE', '/sessions/{sessionId}', undefined],
  ];
  const LOSSES: [string, string][] = [
    ['the admin is banned', `update "user" set banned = true where id = $1`],
    ['the admin is demoted', `update "user" set role = 'user' where id = $1`],
    ['the admin is removed', `delete from "user" where id = $1`],
    ['the admin is signed out', `delete from session where "userId" = $1`],
    ['the session is deleted', `delete from session where "impersonatedBy" = $1`],
    [
      'the session expires',
      `update session set "expiresAt" = now() - interval '1 minute' where "impersonatedBy" = $1`,
    ],
  ];

  /** Locks only the user's own session, so that the impersonated one can end meanwhile. */
  async function change(
    [method, path, body]: [string, string, object | undefined],
    withSid: boolean,
    meanwhile?: string,
  ) {
    const [admin, ada] = [await newAdmin(), await signUp(stack.authWithSid)];
    if (!withSid) await stack.database.sql('delete from session where "userId" = $1', [ada.id]);
    const auth = withSid ? stack.authWithSid : stack.auth;
    const open = await impersonate(admin, ada, auth);
    const own = `own-${ada.id}`;
    // Newer than the token, so that a token without a session id stays impersonated.
    await stack.database.sql(
      `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
       values ($1, 'token-' || md5($1), $2, now() + interval '1 day', now() + interval '1 minute', now())`,
      [own, ada.id],
    );
    const before = await stateOf(ada.id);
    const other = newClient();
    await other.connect();
    try {
      await other.query('begin');
      await other.query('select 1 from "user" where id = $1 for update', [ada.id]);
      await other.query('select 1 from session where id = $1 for update', [own]);
      const answer = callUsers(open, method, `${ada.id}${path.replace('{sessionId}', own)}`, body);
      await until(countLockWaits, 1);
      if (meanwhile !== undefined) await stack.database.sql(meanwhile, [admin.id]);
      await other.query('commit');
      return { ada, before, answer: await answer };
    } finally {
      await other.end();
    }
  }

  describe.each([
    ['with a session id', true],
    ['without a session id', false],
  ])('token %s', (_kind, withSid) => {
    it.each(CHANGES)(
      'accepts a change that %s when nothing else changes',
      async (_what, ...how) => {
        const { answer } = await change(how, withSid);
        expect(answer.status).toBe(200);
      },
    );

    describe.each(LOSSES)('loss: %s', (loss, sql) => {
      it.each(CHANGES)(`refuses a change that %s when ${loss}`, async (_what, ...how) => {
        const { ada, before, answer } = await change(how, withSid, sql);
        expect([answer.status, answer.body.code]).toEqual([401, 'AUTH_SESSION_REVOKED']);
        const [{ user, events } = {}] = before;
        expect((await stateOf(ada.id))[0]).toMatchObject({ user, events });
      });
    });
  });
});
