import { Client } from 'pg';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack({}, { ROLES: 'user,support,admin' })));
afterAll(() => stack.end());

const ask = (by: { token: string }, method: string, path: string, body?: unknown) =>
  stack.gatehouse.call(`/api/v1/users/${path}`, {
    method,
    token: by.token,
    ...(body === undefined ? {} : { body }),
  });

const sidOf = ({ token }: { token: string }) => String(claimsOf(token)['sid']);

async function newAdmin(): Promise<TestUser> {
  const person = await signUp(stack.authWithSid, 'Admin');
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [person.id]);
  return person;
}

/** All that a change to this user could touch. */
const stateOf = (id: string) =>
  stack.database.sql(
    `select to_jsonb(u) as user,
      (select array_agg(s.id order by s.id) from session s where "userId" = u.id) as sessions,
      (select count(*)::int from gatehouse.audit_event where target_user_id = u.id) as events
     from "user" u where id = $1`,
    [id],
  );

const waiting = async () => {
  const [row] = await stack.database.sql<{ count: number }>(
    `select count(*)::int as count from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'`,
  );
  return row?.count;
};

describe('an admin whose change waits for a row lock', () => {
  const CHANGES: [string, string, string, object | undefined][] = [
    ['changes a name', 'PATCH', '', { name: 'Changed' }],
    ['gives a role', 'PUT', '/role', { role: 'support' }],
    ['bans', 'POST', '/ban', { reason: 'spam' }],
    ['lifts a ban', 'DELETE', '/ban', undefined],
    ['ends all sessions', 'DELETE', '/sessions', undefined],
    ['ends a session', 'DELETE', '/sessions/{sessionId}', undefined],
  ];
  const LOSSES: [string, string, number, string][] = [
    ['is demoted', `update "user" set role = 'user' where id = $1`, 403, 'AUTH_FORBIDDEN'],
    ['is banned', `update "user" set banned = true where id = $1`, 403, 'AUTH_FORBIDDEN'],
    ['is removed', `delete from "user" where id = $1`, 403, 'AUTH_FORBIDDEN'],
    ['is signed out', `delete from session where "userId" = $1`, 401, 'AUTH_SESSION_REVOKED'],
  ];

  const holder = () => new Client({ connectionString: stack.database.directUrl });

  /** Sends the change while somebody else holds the target, and resolves with its answer. */
  async function whileHeld(
    change: (target: TestUser) => ReturnType<typeof ask>,
    target: TestUser,
    meanwhile: () => Promise<unknown>,
  ) {
    const other = holder();
    await other.connect();
    try {
      await other.query('begin');
      await other.query('select 1 from "user" where id = $1 for update', [target.id]);
      await other.query('select 1 from session where "userId" = $1 for update', [target.id]);
      const answer = change(target);
      await until(waiting, 1);
      await meanwhile();
      await other.query('commit');
      return await answer;
    } finally {
      await other.end();
    }
  }

  describe.each(LOSSES)('and who %s meanwhile', (_loss, sql, status, code) => {
    it.each(CHANGES)('is refused when the change %s', async (_what, method, path, body) => {
      const [admin, target] = [await newAdmin(), await signUp(stack.authWithSid)];
      await stack.database.sql(`update "user" set banned = $2 where id = $1`, [
        target.id,
        method === 'DELETE' && path === '/ban',
      ]);
      const before = await stateOf(target.id);
      const route = path.replace('{sessionId}', sidOf(target));
      const answer = await whileHeld(
        ({ id }) => ask(admin, method, `${id}${route}`, body),
        target,
        () => stack.database.sql(sql, [admin.id]),
      );
      expect([answer.status, answer.body.code]).toEqual([status, code]);
      expect(await stateOf(target.id)).toEqual(before);
    });
  });

  it('is refused when the change gives back the role that the admin lost meanwhile', async () => {
    const admin = await newAdmin();
    const answer = await whileHeld(
      ({ id }) => ask(admin, 'PUT', `${id}/role`, { role: ['admin', 'support'] }),
      admin,
      async () => undefined,
    );
    expect(answer.status).toBe(200);
    const other = holder();
    await other.connect();
    await other.query('begin');
    await other.query(`update "user" set role = 'user' where id = $1`, [admin.id]);
    const late = ask(admin, 'PUT', `${admin.id}/role`, { role: 'admin' });
    await until(waiting, 1);
    await other.query('commit');
    await other.end();
    expect((await late).body.code).toBe('AUTH_FORBIDDEN');
  });

  it('is served when nothing happens meanwhile', async () => {
    const [admin, target] = [await newAdmin(), await signUp(stack.authWithSid)];
    for (const [, method, path, body] of CHANGES.slice(0, 4)) {
      const answer = await whileHeld(
        ({ id }) => ask(admin, method, `${id}${path}`, body),
        target,
        async () => undefined,
      );
      expect(answer.status).toBe(200);
    }
  });
});

it('lets two admins change each other at once, 100 times, without a deadlock', async () => {
  const [ada, eve] = [await newAdmin(), await newAdmin()];
  const deadlocks = async () => {
    const [row] = await stack.database.sql<{ deadlocks: string }>(
      'select deadlocks from pg_stat_database where datname = current_database()',
    );
    return row?.deadlocks;
  };
  const before = await deadlocks();
  for (let round = 0; round < 100; round += 1) {
    const answers = await Promise.all([
      ask(ada, 'PATCH', eve.id, { name: `Eve ${round}` }),
      ask(eve, 'PATCH', ada.id, { name: `Ada ${round}` }),
      ask(eve, 'PUT', `${ada.id}/role`, { role: round % 2 ? 'admin' : ['admin', 'support'] }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  }
  expect(await deadlocks()).toBe(before);
});

describe('sessions in which an admin impersonates somebody', () => {
  interface Impersonation {
    id: string;
    token: string;
    session: string;
    sid: string;
  }

  async function impersonate(admin: TestUser, person: TestUser): Promise<Impersonation> {
    const { session } = await stack.authWithSid.post<{ session: { token: string; id: string } }>(
      '/admin/impersonate-user',
      { userId: person.id },
      admin.session,
    );
    const token = await stack.authWithSid.tokenFor(session.token);
    return { id: person.id, token, session: session.token, sid: session.id };
  }

  const impersonatedBy = (id: string) =>
    stack.database.sql('select id from session where "impersonatedBy" = $1', [id]);

  const lastEvent = async (id: string) => {
    const [row] = await stack.database.sql<{ action: string; after: object }>(
      'select action, after from gatehouse.audit_event where target_user_id = $1 order by id desc',
      [id],
    );
    return row;
  };

  it.each([
    ['the admin is banned', 'POST', '/ban', { reason: 'x' }],
    ['the admin is demoted', 'PUT', '/role', { role: 'support' }],
    ['the admin is signed out everywhere', 'DELETE', '/sessions', undefined],
  ])('end when %s, in the same transaction', async (_what, method, path, body) => {
    const [root, admin] = [await newAdmin(), await newAdmin()];
    const [ada, bob] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    const ofOthers = await impersonate(root, bob);
    const open = [await impersonate(admin, ada), await impersonate(admin, bob)];
    for (const { id, token } of open) expect((await ask({ token }, 'GET', id)).status).toBe(200);

    expect((await ask(root, method, `${admin.id}${path}`, body)).status).toBe(200);

    for (const { id, token } of open) {
      expect((await ask({ token }, 'GET', id)).body.code).toBe('AUTH_SESSION_REVOKED');
    }
    expect(await impersonatedBy(admin.id)).toEqual([]);
    expect(await stack.auth.get('/get-session', open[0]?.session)).toBeNull();
    expect((await lastEvent(admin.id))?.after).toMatchObject({ impersonationsEnded: 2 });
    // What they have open themselves, and what others do as them, goes on.
    for (const { id, token } of [ada, bob, ofOthers]) {
      expect((await ask({ token }, 'GET', id)).status).toBe(200);
    }
  });

  it('end with `except=current`, too, and count as revoked', async () => {
    const [admin, ada] = [await newAdmin(), await signUp(stack.authWithSid)];
    const open = await impersonate(admin, ada);
    const { body } = await ask(admin, 'DELETE', `${admin.id}/sessions?except=current`);
    expect(body.revoked).toBe(1);
    expect((await ask(open, 'GET', ada.id)).body.code).toBe('AUTH_SESSION_REVOKED');
    expect((await ask(admin, 'GET', admin.id)).status).toBe(200);
    expect((await lastEvent(admin.id))?.after).toEqual({
      revoked: 1,
      kept: sidOf(admin),
      impersonationsEnded: 1,
    });
  });

  it('stay when one session of the admin ends, or when another role changes', async () => {
    const [root, admin, ada] = [
      await newAdmin(),
      await newAdmin(),
      await signUp(stack.authWithSid),
    ];
    // Signed in twice: the impersonation stays valid while one of these sessions is left.
    await stack.authWithSid.signIn(admin);
    const open = await impersonate(admin, ada);
    await ask(root, 'PUT', `${admin.id}/role`, { role: ['admin', 'support'] });
    await ask(root, 'DELETE', `${admin.id}/sessions/${sidOf(admin)}`);
    expect((await ask(open, 'GET', ada.id)).status).toBe(200);
  });

  it('can be ended by the person, who stays an ordinary user in them', async () => {
    const [admin, ada] = [await newAdmin(), await signUp(stack.authWithSid)];
    const open = await impersonate(admin, ada);
    expect((await ask(open, 'DELETE', `${ada.id}/sessions`)).body.revoked).toBe(2);
    expect((await ask(open, 'GET', ada.id)).body.code).toBe('AUTH_SESSION_REVOKED');
    expect((await ask(admin, 'GET', admin.id)).status).toBe(200);
  });

  it('never administer, even if the person is promoted meanwhile', async () => {
    const [admin, ada, bob] = [
      await newAdmin(),
      await signUp(stack.authWithSid),
      await signUp(stack.authWithSid),
    ];
    const open = await impersonate(admin, ada);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [ada.id]);
    for (const [method, path, body] of [
      ['PATCH', bob.id, { name: 'Changed' }],
      ['POST', `${bob.id}/ban`, {}],
      ['DELETE', `${bob.id}/sessions`, undefined],
    ] as const) {
      const answer = await ask(open, method, path, body);
      expect([answer.status, answer.body.code]).toEqual([403, 'AUTH_FORBIDDEN']);
    }
    expect((await stateOf(bob.id))[0]).toMatchObject({ events: 0 });
  });
});
