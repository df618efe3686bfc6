import { signUp } from '../support/users.js';
import { administrationOf, locksOf, sidOf } from '../support/administration.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack({}, { ROLES: 'user,support,admin' })));
afterAll(() => stack.end());

const { callUsers, newAdmin, impersonate, stateOf, whileLocked } = administrationOf(() => stack);

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
        locksOf(target),
        () => callUsers(admin, method, `${target.id}${route}`, body),
        async () => {
          await stack.database.sql(`delete from session where "userId" = $1`, [admin.id]);
          // Neither a session newer than the token, nor one of an impersonator, makes it valid.
          await stack.database.sql(
            `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt", "impersonatedBy")
             select kind || $1, kind || md5($1), $1, now() + interval '1 day', now() + age, now(), impersonator
             from (values ('newer-', interval '1 minute', null), ('other-', interval '-1 hour', $2))
               sessions (kind, age, impersonator)`,
            [admin.id, target.id],
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
      locksOf(target),
      () => callUsers(admin, 'DELETE', `${target.id}/sessions`),
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

  /** With new users again if a busy machine reached the lock timeout of PostgreSQL. */
  async function change(...options: Parameters<typeof changeWhileLocked>) {
    for (let attempt = 1; ; attempt += 1) {
      const result = await changeWhileLocked(...options);
      if (result.answer.status !== 503 || attempt === 3) return result;
    }
  }

  /** Locks only the user's own session, so that the impersonated one can end meanwhile. */
  async function changeWhileLocked(
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
    const answer = await whileLocked(
      [
        ['select 1 from "user" where id = $1 for update', ada.id],
        ['select 1 from session where id = $1 for update', own],
      ],
      () => callUsers(open, method, `${ada.id}${path.replace('{sessionId}', own)}`, body),
      async () => {
        if (meanwhile !== undefined) await stack.database.sql(meanwhile, [admin.id]);
      },
    );
    return { ada, before, answer };
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
