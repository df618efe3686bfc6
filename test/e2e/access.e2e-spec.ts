import { randomBytes } from 'node:crypto';
import { retryOn503 } from '../support/app-process.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
// These tests change rows directly. Without the cache the next request reads them.
beforeAll(async () => (stack = await startStack({}, { CHANGE_FEED: 'off' })));
afterAll(() => stack.end());

/** Runs `work` with a second Gatehouse that has other settings but the same database and issuer. */
async function withGatehouse(
  variables: Record<string, string>,
  work: (gatehouse: RunningApp) => Promise<void>,
): Promise<void> {
  const gatehouse = await startApp({
    DATABASE_URL: stack.database.url,
    BETTER_AUTH_URL: stack.auth.origin,
    CHANGE_FEED: 'off',
    ...variables,
  });
  try {
    await work(gatehouse);
  } finally {
    await gatehouse.close();
  }
}

const outcome = async (gatehouse: RunningApp, path: string, token: string) => {
  const { status, body } = await gatehouse.call(path, { token });
  return [status, body.code ?? 'ok'] as unknown;
};

const giveRole = (user: TestUser, role: string | null) =>
  stack.database.sql('update "user" set role = $1 where id = $2', [role, user.id]);

describe('GET /auth/session', () => {
  it('returns the session, the token and the user for a token with a session id', async () => {
    const ada = await signUp(stack.authWithSid);
    const { status, body } = await stack.gatehouse.call('/api/v1/auth/session', {
      token: ada.token,
    });
    const { sid, iat, exp } = claimsOf(ada.token);
    expect(status).toBe(200);
    expect(body.session).toMatchObject({
      id: sid,
      userId: ada.id,
      current: true,
      impersonatedBy: null,
    });
    expect(body.token).toEqual({
      issuedAt: new Date(Number(iat) * 1000).toISOString(),
      expiresAt: new Date(Number(exp) * 1000).toISOString(),
      binding: 'session',
    });
    expect(body.user).toMatchObject({
      id: ada.id,
      email: ada.email,
      role: 'user',
      roles: ['user'],
    });
  });

  it('returns no session for a token without a session id', async () => {
    const ada = await signUp(stack.auth);
    const { body } = await stack.gatehouse.call('/api/v1/auth/session', { token: ada.token });
    expect([body.session, body.token.binding]).toEqual([null, 'user']);
  });

  it('logs the admin of an impersonated session but does not return it to that session', async () => {
    const [admin, ada] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    await giveRole(admin, 'admin');
    const { session } = await stack.authWithSid.post<{ session: { token: string } }>(
      '/admin/impersonate-user',
      { userId: ada.id },
      admin.session,
    );
    const token = await stack.authWithSid.tokenFor(session.token);
    const { body } = await stack.gatehouse.call('/api/v1/auth/session', {
      token,
      headers: { 'x-request-id': 'impersonated' },
    });
    expect([body.user.id, body.session.impersonatedBy]).toEqual([ada.id, null]);
    const requestId = stack.gatehouse.lines.find(
      (line) => line['clientRequestId'] === 'impersonated',
    )?.['requestId'];
    const lines = stack.gatehouse.lines.filter((line) => line['requestId'] === requestId);
    expect(lines.map((line) => [line['msg'], line['userId'], line['impersonatedBy']])).toEqual([
      ['auth.accepted', ada.id, admin.id],
      ['request', ada.id, admin.id],
    ]);
  });
});

const accountsOf = (id: string) => `/api/v1/users/${id}/accounts`;

describe('linked accounts', () => {
  it('lists the linked accounts of a user without any secret', async () => {
    const ada = await signUp(stack.auth);
    await stack.database.sql(
      `insert into account (id, "accountId", "providerId", "userId", "accessToken", "refreshToken",
        "idToken", scope, "updatedAt") values ($1, '42', 'github', $2, 'at-secret', 'rt-secret', 'it-secret', 'read:user,user:email', now())`,
      [randomBytes(8).toString('hex'), ada.id],
    );
    for (const path of ['/api/v1/auth/accounts', `/api/v1/users/${ada.id}/accounts`]) {
      const { body } = await stack.gatehouse.call(path, { token: ada.token });
      expect(body.items).toMatchObject([
        { providerId: 'credential', accountId: ada.id, scopes: [] },
        { providerId: 'github', accountId: '42', scopes: ['read:user', 'user:email'] },
      ]);
      expect(JSON.stringify(body)).not.toMatch(/secret|password|:\$/);
      const { body: filtered } = await stack.gatehouse.call(`${path}?provider=github`, {
        token: ada.token,
      });
      expect(filtered.items).toHaveLength(1);
    }
  });

  it('rejects an unknown filter or a malformed provider of accounts and names the field', async () => {
    const ada = await signUp(stack.auth);
    for (const [query, field] of [
      ['color=red', 'color'],
      ['provider=', 'provider'],
      ['provider=%00', 'provider'],
      ['provider=a&provider=b', 'provider'],
      [`provider=${'a'.repeat(101)}`, 'provider'],
    ]) {
      const answer = await stack.gatehouse.call(`/api/v1/auth/accounts?${query}`, {
        token: ada.token,
      });
      expect([answer.status, answer.body.code]).toEqual([400, 'VALIDATION_ERROR']);
      expect(answer.body.errors[0].field).toBe(field);
    }
  });

  it('returns accounts to their user and to admins, and hides from others whether a user exists', async () => {
    const [ada, eve, admin] = [
      await signUp(stack.auth),
      await signUp(stack.auth),
      await signUp(stack.auth),
    ];
    await giveRole(admin, 'support,admin');
    expect(await outcome(stack.gatehouse, accountsOf(ada.id), ada.token)).toEqual([200, 'ok']);
    expect(await outcome(stack.gatehouse, accountsOf(ada.id), admin.token)).toEqual([200, 'ok']);
    expect(await outcome(stack.gatehouse, accountsOf(ada.id), eve.token)).toEqual([
      403,
      'AUTH_FORBIDDEN',
    ]);
    expect(await outcome(stack.gatehouse, accountsOf('nobody'), eve.token)).toEqual([
      403,
      'AUTH_FORBIDDEN',
    ]);
    for (const id of ['nobody', 'a'.repeat(2000), '%00', '%F0%9F%92%A9', "'; drop table x"]) {
      expect(await outcome(stack.gatehouse, accountsOf(id), admin.token)).toEqual([
        404,
        'USER_NOT_FOUND',
      ]);
    }
  });
});

describe('roles', () => {
  it.each([
    ['admin', true],
    ['user,admin', true],
    ['Admin', false],
    ['user, admin', false],
    ['administrator', false],
    ['', false],
    [null, false],
    ['constructor', false],
  ])('treats a user with the stored role %j as an admin: %s', async (role, administers) => {
    const [ada, other] = [await signUp(stack.auth), await signUp(stack.auth)];
    await giveRole(ada, role);
    const [status] = (await outcome(
      stack.gatehouse,
      `/api/v1/users/${other.id}/accounts`,
      ada.token,
    )) as number[];
    expect(status).toBe(administers ? 200 : 403);
  });

  it('grants admin rights to the roles in ADMIN_ROLES and the users in ADMIN_USER_IDS', async () => {
    const [ada, bob, other] = [
      await signUp(stack.auth),
      await signUp(stack.auth),
      await signUp(stack.auth),
    ];
    await giveRole(ada, 'owner');
    const path = `/api/v1/users/${other.id}/accounts`;
    expect(await outcome(stack.gatehouse, path, ada.token)).toEqual([403, 'AUTH_FORBIDDEN']);
    await withGatehouse(
      { ROLES: 'user,admin,owner', ADMIN_ROLES: 'owner', ADMIN_USER_IDS: bob.id },
      async (gatehouse) => {
        expect(await outcome(gatehouse, path, ada.token)).toEqual([200, 'ok']);
        expect(await outcome(gatehouse, path, bob.token)).toEqual([200, 'ok']);
        expect(await outcome(gatehouse, path, other.token)).toEqual([200, 'ok']);
        await giveRole(ada, 'admin');
        expect(await outcome(gatehouse, path, ada.token)).toEqual([403, 'AUTH_FORBIDDEN']);
      },
    );
  });
});

describe('SESSION_BINDING', () => {
  const me = '/api/v1/auth/me';

  it('refuses a token without a session id with SESSION_BINDING=require-sid', async () => {
    const [withSid, withoutSid] = [await signUp(stack.authWithSid), await signUp(stack.auth)];
    await withGatehouse({ SESSION_BINDING: 'require-sid' }, async (gatehouse) => {
      expect(await outcome(gatehouse, me, withSid.token)).toEqual([200, 'ok']);
      expect(await outcome(gatehouse, me, withoutSid.token)).toEqual([401, 'AUTH_TOKEN_INVALID']);
    });
  });

  it('checks the user but not the session with SESSION_BINDING=token-only, and warns about it', async () => {
    const ada = await signUp(stack.authWithSid);
    await withGatehouse({ SESSION_BINDING: 'token-only' }, async (gatehouse) => {
      await stack.authWithSid.signOut(ada.session);
      expect(await outcome(gatehouse, me, ada.token)).toEqual([200, 'ok']);
      const { body } = await gatehouse.http.get('/health');
      expect(body.warning).toMatch(/revoked session is refused only when its token expires/);
      await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
      expect(await outcome(gatehouse, me, ada.token)).toEqual([403, 'USER_BANNED']);
    });
  });

  it('works without a session table with SESSION_BINDING=token-only', async () => {
    const [admin, eve] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    await giveRole(admin, 'admin');
    await stack.database.sql('alter table session rename to kept_elsewhere');
    try {
      await withGatehouse({ SESSION_BINDING: 'token-only' }, async (gatehouse) => {
        const { token } = admin;
        const call: RunningApp['call'] = (path, options) => gatehouse.call(path, options);
        const sessions = `/api/v1/users/${eve.id}/sessions`;
        const list = await call(sessions, { token });
        expect([list.status, list.body]).toEqual([200, { items: [], total: 0 }]);
        const all = await call(sessions, { token, method: 'DELETE' });
        expect([all.status, all.body.revoked]).toEqual([200, 0]);
        expect((await call(`${sessions}/any`, { token, method: 'DELETE' })).status).toBe(404);
        const ban = await call(`/api/v1/users/${eve.id}/ban`, { token, method: 'POST', body: {} });
        expect([ban.status, ban.body.banned]).toEqual([200, true]);
        expect((await call(me, { token: eve.token })).body.code).toBe('USER_BANNED');
      });
    } finally {
      await stack.database.sql('alter table kept_elsewhere rename to session');
    }
  });

  it('reads the session id only from the claim that JWT_SESSION_CLAIM names', async () => {
    const ada = await signUp(stack.authWithSid);
    await withGatehouse({ JWT_SESSION_CLAIM: 'session_id' }, async (gatehouse) => {
      const { body } = await gatehouse.call('/api/v1/auth/session', { token: ada.token });
      expect(body.token.binding).toBe('user');
    });
  });
});

describe('bearer authentication', () => {
  it('returns a challenge without an error code when the request has no token', async () => {
    const { status, headers, body } = await stack.gatehouse.call('/api/v1/auth/me');
    expect([status, body.code]).toEqual([401, 'AUTH_MISSING_TOKEN']);
    expect(headers.get('www-authenticate')).toBe('Bearer realm="gatehouse"');
  });

  it('returns the same response for an invalid token and for a token of a deleted user', async () => {
    const ada = await signUp(stack.auth);
    await stack.database.sql('delete from "user" where id = $1', [ada.id]);
    const responses = [];
    for (const token of [ada.token, `${ada.token}x`, 'a.b.c', 'nonsense']) {
      const { status, headers, body } = await stack.gatehouse.call('/api/v1/auth/me', {
        token,
      });
      const { requestId: _, ...rest } = body;
      responses.push(JSON.stringify([status, rest, headers.get('www-authenticate')]));
    }
    expect(new Set(responses).size).toBe(1);
    expect(responses[0]).toContain('error=\\"invalid_token\\"');
  });

  it.each([
    [
      'no space after the scheme, which makes it another scheme',
      (token: string) => `Bearer${token}`,
      'AUTH_MISSING_TOKEN',
    ],
    ['a tab after the scheme', (token: string) => `Bearer\t${token}`, 'AUTH_TOKEN_INVALID'],
    ['text after the token', (token: string) => `Bearer ${token} x`, 'AUTH_TOKEN_INVALID'],
    ['no token after the scheme', () => 'Bearer', 'AUTH_TOKEN_INVALID'],
    ['the scheme twice', (token: string) => `Bearer Bearer ${token}`, 'AUTH_TOKEN_INVALID'],
    ['quotes', (token: string) => `Bearer "${token}"`, 'AUTH_TOKEN_INVALID'],
    ['JSON', (token: string) => `Bearer {"token":"${token}"}`, 'AUTH_TOKEN_INVALID'],
    ['another scheme', () => 'Basic YTpi', 'AUTH_MISSING_TOKEN'],
  ])('refuses an Authorization header with %s', async (_what, header, code) => {
    const ada = await signUp(stack.auth);
    const { status, body } = await stack.gatehouse.call('/api/v1/auth/me', {
      headers: { authorization: header(ada.token) },
    });
    expect([status, body.code]).toEqual([401, code]);
    expect(body.detail).toMatch(/^Send (the token alone, as )?`Authorization: Bearer <token>`/);
  });

  it('accepts the scheme in any case and reads the token only from the Authorization header', async () => {
    const ada = await signUp(stack.auth);
    const { status } = await stack.gatehouse.call('/api/v1/auth/me', {
      headers: { authorization: `bEARER ${ada.token}` },
    });
    expect(status).toBe(200);
    // RFC 6750 §2.1: one or more spaces. The second request finds the token in the cache.
    for (const authorization of [`Bearer  ${ada.token}`, `Bearer     ${ada.token}`]) {
      for (let call = 0; call < 2; call += 1) {
        const answer = await stack.gatehouse.call('/api/v1/auth/me', {
          headers: { authorization },
        });
        expect(answer.status).toBe(200);
      }
    }
    for (const [path, headers] of [
      [`/api/v1/auth/me?access_token=${ada.token}`, {}],
      ['/api/v1/auth/me', { cookie: `token=${ada.token}` }],
      ['/api/v1/auth/me', { 'x-access-token': ada.token }],
    ] as const) {
      expect((await stack.gatehouse.call(path, { headers })).status).toBe(401);
    }
  });
});

const outcomeWithMaxLifetime = async (limit: string, token: string) => {
  let answer: unknown;
  await withGatehouse({ JWT_MAX_LIFETIME_SECONDS: limit }, async (gatehouse) => {
    const { status, body } = await gatehouse.call('/api/v1/auth/me', { token });
    const { reason } = gatehouse.lines.find(({ event }) => event === 'auth.failed') ?? {};
    answer = [status, body.code, String(body.detail).includes('JWT_MAX_LIFETIME_SECONDS'), reason];
  });
  return answer;
};

it('names JWT_MAX_LIFETIME_SECONDS only for a genuine token with too long a lifetime', async () => {
  const ada = await signUp(stack.authWithSid);
  const [header, payload, signature = ''] = ada.token.split('.');
  const forged = [header, payload, (signature[0] === 'A' ? 'B' : 'A') + signature.slice(1)].join(
    '.',
  );
  expect(await outcomeWithMaxLifetime('899', ada.token)).toEqual([
    401,
    'AUTH_TOKEN_INVALID',
    true,
    'lifetime',
  ]);
  expect(await outcomeWithMaxLifetime('899', forged)).toEqual([
    401,
    'AUTH_TOKEN_INVALID',
    false,
    'signature',
  ]);
});

describe('authentication log events', () => {
  it('logs an accepted token once, without the token itself', async () => {
    const ada = await signUp(stack.authWithSid);
    for (let i = 0; i < 3; i += 1)
      await stack.gatehouse.call('/api/v1/auth/me', { token: ada.token });
    const lines = stack.gatehouse.lines.filter(
      (line) => line['event'] === 'auth.accepted' && line['userId'] === ada.id,
    );
    expect(lines).toMatchObject([
      { sessionId: claimsOf(ada.token)['sid'], binding: 'session', ip: '127.0.0.1' },
    ]);
    expect(JSON.stringify(stack.gatehouse.lines)).not.toContain(ada.token.slice(-40));
  });

  it('logs why a token was refused but does not return the reason to the client', async () => {
    const ada = await signUp(stack.auth);
    const forged = `${ada.token.slice(0, -10)}AAAAAAAAAA`;
    const { body } = await stack.gatehouse.call('/api/v1/auth/me', { token: forged });
    const line = stack.gatehouse.lines.find(
      (candidate) =>
        candidate['requestId'] === body.requestId && candidate['event'] === 'auth.failed',
    );
    expect(line).toMatchObject({
      code: 'AUTH_TOKEN_INVALID',
      reason: 'signature',
      ip: '127.0.0.1',
    });
    expect(JSON.stringify(body)).not.toContain('signature');
  });

  it('limits the log lines about bad tokens, so that a flood cannot fill the disk', async () => {
    await withGatehouse({}, async (gatehouse) => {
      for (let i = 0; i < 700; i += 1)
        await gatehouse.call('/api/v1/auth/me', { token: `bad${i}` });
      const events = gatehouse.lines.filter((line) => line['event'] === 'auth.failed');
      expect(events).toHaveLength(100);
      const requests = gatehouse.lines.filter((line) => line['msg'] === 'request');
      expect(requests).toHaveLength(600);
    });
  });
});

it('returns its own user to each caller in 1,000 interleaved requests of 50 users', async () => {
  const users: TestUser[] = [];
  // Sign up a few users at a time, because Better-Auth must hash each password.
  while (users.length < 50) {
    users.push(...(await Promise.all(Array.from({ length: 5 }, () => signUp(stack.auth)))));
  }
  const answers: string[] = [];
  // With more than 100 requests at once, some would wait too long for a connection and fail.
  const workers = Array.from({ length: 100 }, async (_, first) => {
    for (let i = first; i < 1000; i += 100) {
      const user = users[(i * 7 + Math.floor(i / 100)) % 50] as TestUser;
      const { body } = await retryOn503(() =>
        stack.gatehouse.call('/api/v1/auth/me', { token: user.token }),
      );
      answers.push(body.id === user.id && body.email === user.email ? 'own' : JSON.stringify(body));
    }
  });
  await Promise.all(workers);
  expect(answers).toHaveLength(1000);
  expect(answers.filter((answer) => answer !== 'own')).toEqual([]);
});
