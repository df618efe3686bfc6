import type { Algorithm, BetterAuth } from '../../tools/better-auth.ts';
import type { RunningApp } from '../support/test-app.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

const verdict = async (gatehouse: RunningApp, token: string) => {
  const { status, body } = await gatehouse.call('/api/v1/auth/me', { token });
  return [status, body.code ?? body.id] as unknown;
};

describe.each<Algorithm>(['EdDSA', 'ES256', 'ES512', 'RS256', 'PS256'])(
  'with a Better-Auth that signs by %s',
  (algorithm) => {
    let stack: Stack;
    beforeAll(async () => (stack = await startStack({ algorithm })));
    afterAll(() => stack.end());

    it('accepts its default token, which names no session', async () => {
      const ada = await signUp(stack.auth);
      expect(claimsOf(ada.token)['sid']).toBeUndefined();
      expect(await verdict(stack.gatehouse, ada.token)).toEqual([200, ada.id]);
    });

    it('accepts a token that names its session', async () => {
      const ada = await signUp(stack.authWithSid);
      expect(claimsOf(ada.token)['sid']).toEqual(expect.any(String));
      expect(await verdict(stack.gatehouse, ada.token)).toEqual([200, ada.id]);
    });
  },
);

describe.each([
  ['off', 'at the next request'],
  ['on', 'as soon as PostgreSQL tells of it'],
])('with CHANGE_FEED=%s, what Better-Auth itself ends is over %s', (feed) => {
  let stack: Stack;
  let admin: TestUser;

  const becomes = async (token: string, wanted: unknown[]) => {
    const ask = async () => JSON.stringify(await verdict(stack.gatehouse, token));
    if (feed === 'off') expect(await ask()).toBe(JSON.stringify(wanted));
    else await until(ask, JSON.stringify(wanted), 2);
  };

  beforeAll(async () => {
    stack = await startStack({}, { CHANGE_FEED: feed });
    admin = await signUp(stack.auth, 'Admin');
    await stack.database.sql('update "user" set role = $1 where id = $2', ['admin', admin.id]);
  });
  afterAll(() => stack.end());

  describe.each(['auth', 'authWithSid'] as const)('with tokens of %s', (issuer) => {
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
    ])('%s', async (_what, end, status, code) => {
      const ada = await signUp(stack[issuer]);
      expect(await verdict(stack.gatehouse, ada.token)).toEqual([200, ada.id]);
      await end(stack[issuer], ada);
      await becomes(ada.token, [status, code]);
    });
  });

  it('tells a banned user why, and until when', async () => {
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

  it('lets a ban that has run out count no more, though the row still says banned', async () => {
    const ada = await signUp(stack.auth);
    await stack.database.sql(
      `update "user" set banned = true, "banExpires" = now() - interval '1 second' where id = $1`,
      [ada.id],
    );
    const { status, body } = await stack.gatehouse.call('/api/v1/auth/me', { token: ada.token });
    expect([status, body.banned]).toEqual([200, false]);
  });

  it('ends one session and leaves the other, where tokens name theirs', async () => {
    const ada = await signUp(stack.authWithSid);
    const { sessionToken } = await stack.authWithSid.signIn(ada);
    const other = await stack.authWithSid.tokenFor(sessionToken);
    await stack.authWithSid.signOut(ada.session);
    expect(await verdict(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
    expect(await verdict(stack.gatehouse, other)).toEqual([200, ada.id]);
  });

  it('does not let a new sign-in bring an old token back, where tokens name none', async () => {
    const ada = await signUp(stack.auth);
    await stack.auth.post('/revoke-sessions', {}, ada.session);
    await stack.auth.signIn(ada);
    // `iat` has whole seconds, so a session may be up to a second younger and still vouch.
    await stack.database.sql(
      `update session set "createdAt" = "createdAt" + interval '2 seconds' where "userId" = $1`,
      [ada.id],
    );
    expect(await verdict(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
  });

  it('counts a session that has expired as none, though its row is still there', async () => {
    for (const issuer of [stack.auth, stack.authWithSid]) {
      const ada = await signUp(issuer);
      await stack.database.sql(
        `update session set "expiresAt" = now() - interval '1 second' where "userId" = $1`,
        [ada.id],
      );
      expect(await verdict(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
    }
  });

  it('does not take a session of somebody else for a witness', async () => {
    const [ada, eve] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    await stack.database.sql('update session set "userId" = $1 where "userId" = $2', [
      eve.id,
      ada.id,
    ]);
    expect(await verdict(stack.gatehouse, ada.token)).toEqual([401, 'AUTH_SESSION_REVOKED']);
  });

  it('reads a role from the row and never from the token', async () => {
    const boss = await signUp(stack.auth);
    const somebody = await signUp(stack.auth);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [boss.id]);
    const token = await stack.auth.tokenFor(boss.session);
    expect(claimsOf(token)['role']).toBe('admin');
    const path = `/api/v1/users/${somebody.id}/accounts`;
    expect((await stack.gatehouse.call(path, { token })).status).toBe(200);
    await stack.database.sql(`update "user" set role = 'user' where id = $1`, [boss.id]);
    const ask = async () => (await stack.gatehouse.call(path, { token })).body.code as string;
    if (feed === 'off') expect(await ask()).toBe('AUTH_FORBIDDEN');
    else await until(ask, 'AUTH_FORBIDDEN', 2);
  });
});
