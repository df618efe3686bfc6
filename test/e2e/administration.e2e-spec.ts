import { signUp } from '../support/users.js';
import { administrationOf, locksOf, sidOf } from '../support/administration.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack({}, { ROLES: 'user,support,admin' })));
afterAll(() => stack.end());

const { callUsers, newAdmin, impersonate, stateOf, whileLocked } = administrationOf(() => stack);

describe('admin rights of a change that waits for a row lock', () => {
  const CHANGES: [string, string, string, object | undefined][] = [
    ['changes a name', 'PATCH', '', { name: 'Changed' }],
    ['sets a role', 'PUT', '/role', { role: 'support' }],
    ['bans a user', 'POST', '/ban', { reason: 'spam' }],
    ['lifts a ban', 'DELETE', '/ban', undefined],
    ['revokes all sessions', 'DELETE', '/sessions', undefined],
    ['revokes a session', 'DELETE', '/sessions/{sessionId}', undefined],
  ];
  const LOSSES: [string, string, number, string][] = [
    ['is demoted', `update "user" set role = 'user' where id = $1`, 403, 'AUTH_FORBIDDEN'],
    ['is banned', `update "user" set banned = true where id = $1`, 403, 'AUTH_FORBIDDEN'],
    ['is removed', `delete from "user" where id = $1`, 403, 'AUTH_FORBIDDEN'],
    ['is signed out', `delete from session where "userId" = $1`, 401, 'AUTH_SESSION_REVOKED'],
  ];

  describe.each(LOSSES)('admin who %s before the lock is granted', (loss, sql, status, code) => {
    it.each(CHANGES)(
      `refuses an admin who %s but ${loss} while waiting for a row lock`,
      async (_what, method, path, body) => {
        const [admin, target] = [await newAdmin(), await signUp(stack.authWithSid)];
        await stack.database.sql(`update "user" set banned = $2 where id = $1`, [
          target.id,
          method === 'DELETE' && path === '/ban',
        ]);
        const before = await stateOf(target.id);
        const route = path.replace('{sessionId}', sidOf(target));
        const answer = await whileLocked(
          locksOf(target),
          () => callUsers(admin, method, `${target.id}${route}`, body),
          () => stack.database.sql(sql, [admin.id]),
        );
        expect([answer.status, answer.body.code]).toEqual([status, code]);
        expect(await stateOf(target.id)).toEqual(before);
      },
    );
  });

  it('refuses an admin who would restore an admin role that was removed during the lock wait', async () => {
    const admin = await newAdmin();
    const answer = await whileLocked(
      locksOf(admin),
      () => callUsers(admin, 'PUT', `${admin.id}/role`, { role: ['admin', 'support'] }),
      async () => undefined,
    );
    expect(answer.status).toBe(200);
    const refused = await whileLocked(
      [[`update "user" set role = 'user' where id = $1`, admin.id]],
      () => callUsers(admin, 'PUT', `${admin.id}/role`, { role: 'admin' }),
      async () => undefined,
    );
    expect(refused.body.code).toBe('AUTH_FORBIDDEN');
  });

  it('makes the change when the admin keeps all rights while waiting for a row lock', async () => {
    const [admin, target] = [await newAdmin(), await signUp(stack.authWithSid)];
    for (const [, method, path, body] of CHANGES.slice(0, 4)) {
      const answer = await whileLocked(
        locksOf(target),
        () => callUsers(admin, method, `${target.id}${path}`, body),
        async () => undefined,
      );
      expect(answer.status).toBe(200);
    }
  });
});

it('lets two admins change each other concurrently 100 times without a deadlock', async () => {
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
      callUsers(ada, 'PATCH', eve.id, { name: `Eve ${round}` }),
      callUsers(eve, 'PATCH', ada.id, { name: `Ada ${round}` }),
      callUsers(eve, 'PUT', `${ada.id}/role`, { role: round % 2 ? 'admin' : ['admin', 'support'] }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  }
  expect(await deadlocks()).toBe(before);
});

describe('impersonated sessions of an admin', () => {
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
  ])(
    'ends impersonated sessions in the same transaction when %s',
    async (_what, method, path, body) => {
      const [root, admin] = [await newAdmin(), await newAdmin()];
      const [ada, bob] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
      const byOtherAdmin = await impersonate(root, bob);
      const impersonations = [await impersonate(admin, ada), await impersonate(admin, bob)];
      for (const { id, token } of impersonations)
        expect((await callUsers({ token }, 'GET', id)).status).toBe(200);

      expect((await callUsers(root, method, `${admin.id}${path}`, body)).status).toBe(200);

      for (const { id, token } of impersonations) {
        expect((await callUsers({ token }, 'GET', id)).body.code).toBe('AUTH_SESSION_REVOKED');
      }
      expect(await impersonatedBy(admin.id)).toEqual([]);
      expect(await stack.auth.get('/get-session', impersonations[0]?.session)).toBeNull();
      expect((await lastEvent(admin.id))?.after).toMatchObject({ impersonationsEnded: 2 });
      // The users' own sessions and the impersonation by another admin stay valid.
      for (const { id, token } of [ada, bob, byOtherAdmin]) {
        expect((await callUsers({ token }, 'GET', id)).status).toBe(200);
      }
    },
  );

  it('ends the impersonated sessions of an admin with except=current and counts them as revoked', async () => {
    const [admin, ada] = [await newAdmin(), await signUp(stack.authWithSid)];
    const impersonation = await impersonate(admin, ada);
    const { body } = await callUsers(admin, 'DELETE', `${admin.id}/sessions?except=current`);
    expect(body.revoked).toBe(1);
    expect((await callUsers(impersonation, 'GET', ada.id)).body.code).toBe('AUTH_SESSION_REVOKED');
    expect((await callUsers(admin, 'GET', admin.id)).status).toBe(200);
    expect((await lastEvent(admin.id))?.after).toEqual({
      revoked: 1,
      kept: sidOf(admin),
      impersonationsEnded: 1,
    });
  });

  it('keeps impersonated sessions when one session of the admin ends or another role changes', async () => {
    const [root, admin, ada] = [
      await newAdmin(),
      await newAdmin(),
      await signUp(stack.authWithSid),
    ];
    // The admin signs in twice: the impersonation is valid while one of the two sessions is left.
    await stack.authWithSid.signIn(admin);
    const impersonation = await impersonate(admin, ada);
    await callUsers(root, 'PUT', `${admin.id}/role`, { role: ['admin', 'support'] });
    await callUsers(root, 'DELETE', `${admin.id}/sessions/${sidOf(admin)}`);
    expect((await callUsers(impersonation, 'GET', ada.id)).status).toBe(200);
  });

  it('lets an impersonated session revoke the sessions of its user but not those of the admin', async () => {
    const [admin, ada] = [await newAdmin(), await signUp(stack.authWithSid)];
    const impersonation = await impersonate(admin, ada);
    expect((await callUsers(impersonation, 'DELETE', `${ada.id}/sessions`)).body.revoked).toBe(2);
    expect((await callUsers(impersonation, 'GET', ada.id)).body.code).toBe('AUTH_SESSION_REVOKED');
    expect((await callUsers(admin, 'GET', admin.id)).status).toBe(200);
  });

  it('refuses admin changes from an impersonated session even when its user is promoted', async () => {
    const [admin, ada, bob] = [
      await newAdmin(),
      await signUp(stack.authWithSid),
      await signUp(stack.authWithSid),
    ];
    const impersonation = await impersonate(admin, ada);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [ada.id]);
    for (const [method, path, body] of [
      ['PATCH', bob.id, { name: 'Changed' }],
      ['POST', `${bob.id}/ban`, {}],
      ['DELETE', `${bob.id}/sessions`, undefined],
    ] as const) {
      const answer = await callUsers(impersonation, method, path, body);
      expect([answer.status, answer.body.code]).toEqual([403, 'AUTH_FORBIDDEN']);
    }
    expect((await stateOf(bob.id))[0]).toMatchObject({ events: 0 });
  });
});
