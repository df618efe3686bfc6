import type { Algorithm, BetterAuth } from '../../tools/better-auth.ts';
import type { RunningApp } from '../support/test-app.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

const authenticate = async (gatehouse: RunningApp, token: string) => {
  const { status, body } = await gatehouse.call('/api/v1/auth/me', { token });
  return [status, body.code ?? body.id] as unknown;
};

describe.each<Algorithm>(['EdDSA', 'ES256', 'ES512', 'RS256', 'PS256'])(
  'tokens that are signed with %s',
  (algorithm) => {
    let stack: Stack;
    beforeAll(async () => (stack = await startStack({ algorithm })));
    afterAll(() => stack.end());

    it(`accepts the default token of Better-Auth, which names no session (${algorithm})`, async () => {
      const ada = await signUp(stack.auth);
      expect(claimsOf(ada.token)['sid']).toBeUndefined();
      expect(await authenticate(stack.gatehouse, ada.token)).toEqual([200, ada.id]);
    });

    it(`accepts a token that names its session (${algorithm})`, async () => {
      const ada = await signUp(stack.authWithSid);
      expect(claimsOf(ada.token)['sid']).toEqual(expect.any(String));
      expect(await authenticate(stack.gatehouse, ada.token)).toEqual([200, ada.id]);
    });
  },
);

describe.each([
  ['off', 'at the next request'],
  ['on', 'after the next poll'],
])('changes in the database with CHANGE_FEED=%s, effective %s', (feed) => {
  let stack: Stack;
  let admin: TestUser;

  const expectResponse = async (token: string, expected: unknown[]) => {
    const current = async () => JSON.stringify(await authenticate(stack.gatehouse, token));
    if (feed === 'off') expect(await current()).toBe(JSON.stringify(expected));
    else await until(current, JSON.stringify(expected));
  };

  beforeAll(async () => {
    stack = await startStack({}, { CHANGE_FEED: feed });
    admin = await signUp(stack.auth, 'Admin');
    await stack.database.sql('update "user" set role = $1 where id = $2', ['admin', admin.id]);
  });
  afterAll(() => stack.end());

  describe.each([
    ['without', 'auth'],
    ['with', 'authWithSid'],
  ] as const)('revocation of tokens %s sid', (sid, issuer) => {
    it.each<[string, (auth: BetterAuth, ada: TestUser) => Promise<unknown>, number, string]>([
      ['a sign-out', (auth, ada) => auth.signOut(ada.session), 401, 'AUTH_SESSION_REVOKED'],
      [
        'revoke-session',
        (auth, ada) => auth.post('/revoke-session', { token: ada.session }, ada.session),
        401,
        'AUTH_SESSION_REVOKED',
      ],
      [
        'revoke-sessions',
        (auth, ada) => auth.post('/revoke-sessions', {}, ada.session),
        401,
        'AUTH_SESSION_REVOKED',
      ],
      [
        'a ban',
        (auth, ada) => auth.post('/admin/ban-user', { userId: ada.id }, admin.session),
        403,
        'USER_BANNED',
      ],
      [
        'a removal of the user',
        (auth, ada) => auth.post('/admin/remove-user', { userId: ada.id }, admin.session),
        401,
        'AUTH_TOKEN_INVALID',
      ],
    ])(
      `refuses a token ${sid} sid after %s at Better-Auth (CHANGE_FEED=${feed})`,
      async (_what, end, status, code) => {
        const ada = await signUp(stack[issuer]);
        expect(await authenticate(stack.gatehouse, ada.token)).toEqual([200, ada.id]);
        await end(stack[issuer], ada);
        await expectResponse(ada.token, [status, code]);
      },
    );
  });

  it(`states the reason and the end of a ban in the response (CHANGE_FEED=${feed})`, async () => {
    const ada = await signUp(stack.auth);
    await stack.auth.post(
      '/admin/ban-user',
      { userId: ada.id, banReason: 'spam', banExpiresIn: 3600 },
      admin.session,
    );
    const { body } = await stack.gatehouse.call('/api/v1/auth/me', { token: ada.token });
    expect(body).toMatchObject({ code: 'USER_BANNED', banReason: 'spam' });
    expect(Date.parse(body.banExpires)).toBeGreaterThan(Date.now() + 3_500_000);
  });

  it(`ignores an expired ban that is still in the database (CHANGE_FEED=${feed})`, async () => {
    const ada = await signUp(stack.auth);
    await stack.database.sql(
      `update "user" set banned = true, "banExpires" = now() - interval '1 second' where id = $1`,
      [ada.id],
    );
    const { status, body } = await stack.gatehouse.call('/api/v1/auth/me', { token: ada.token });
    expect([status, body.banned]).toEqual([200, false]);
  });

  it(`refuses a token of a revoked session and accepts one of another session (CHANGE_FEED=${feed})`, async () => {
    const ada = await signUp(stack.authWithSid);
    const { sessionToken } = await stack.authWithSid.signIn(ada);
    const other = await stack.authWithSid.tokenFor(sessionToken);
    await stack.authWithSid.signOut(ada.session);
    expect(await authenticate(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
    expect(await authenticate(stack.gatehouse, other)).toEqual([200, ada.id]);
  });

  it(`refuses a token without sid that is older than every session of its user (CHANGE_FEED=${feed})`, async () => {
    const ada = await signUp(stack.auth);
    await stack.auth.post('/revoke-sessions', {}, ada.session);
    await stack.auth.signIn(ada);
    // `iat` has whole seconds, so a session that is up to a second younger still counts.
    await stack.database.sql(
      `update session set "createdAt" = "createdAt" + interval '2 seconds' where "userId" = $1`,
      [ada.id],
    );
    expect(await authenticate(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
  });

  it(`refuses a token whose session expired but is still in the database (CHANGE_FEED=${feed})`, async () => {
    for (const issuer of [stack.auth, stack.authWithSid]) {
      const ada = await signUp(issuer);
      await stack.database.sql(
        `update session set "expiresAt" = now() - interval '1 second' where "userId" = $1`,
        [ada.id],
      );
      expect(await authenticate(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
    }
  });

  it(`refuses a token that names a session of another user (CHANGE_FEED=${feed})`, async () => {
    const [ada, eve] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    await stack.database.sql('update session set "userId" = $1 where "userId" = $2', [
      eve.id,
      ada.id,
    ]);
    expect(await authenticate(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
  });

  it(`reads the role from the database and not from the token (CHANGE_FEED=${feed})`, async () => {
    const boss = await signUp(stack.auth);
    const other = await signUp(stack.auth);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [boss.id]);
    const token = await stack.auth.tokenFor(boss.session);
    expect(claimsOf(token)['role']).toBe('admin');
    const path = `/api/v1/users/${other.id}/accounts`;
    expect((await stack.gatehouse.call(path, { token })).status).toBe(200);
    await stack.database.sql(`update "user" set role = 'user' where id = $1`, [boss.id]);
    const problemCode = async () =>
      (await stack.gatehouse.call(path, { token })).body.code as string;
    if (feed === 'off') expect(await problemCode()).toBe('AUTH_FORBIDDEN');
    else await until(problemCode, 'AUTH_FORBIDDEN');
  });
});
