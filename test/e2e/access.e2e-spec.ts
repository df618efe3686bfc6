import { randomBytes } from 'node:crypto';
import { type RunningApp, startApp } from '../support/test-app.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
// What is changed by hand here is looked at by the very next request.
beforeAll(async () => (stack = await startStack({}, { CHANGE_FEED: 'off' })));
afterAll(() => stack.end());

/** Another Gatehouse on the same database and issuer, set up in its own way. */
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

const giveRole = (person: TestUser, role: string | null) =>
  stack.database.sql('update "user" set role = $1 where id = $2', [role, person.id]);

describe('GET /auth/session', () => {
  it('shows the session, the token and the user of a token that names its session', async () => {
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

  it('shows no session for a token that names none', async () => {
    const ada = await signUp(stack.auth);
    const { body } = await stack.gatehouse.call('/api/v1/auth/session', { token: ada.token });
    expect([body.session, body.token.binding]).toEqual([null, 'user']);
  });

  it('logs who acts as somebody else, and does not show it to them', async () => {
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

describe('accounts', () => {
  it('lists how a user signs in, without any secret', async () => {
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

  it('refuses a filter it does not know by name, and one that is no plain text', async () => {
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

  it('are for oneself and for admins; a stranger learns nothing, not even who exists', async () => {
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
        'NOT_FOUND',
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
  ])('a stored role of %j administers: %s', async (role, administers) => {
    const [ada, somebody] = [await signUp(stack.auth), await signUp(stack.auth)];
    await giveRole(ada, role);
    const [status] = (await outcome(
      stack.gatehouse,
      `/api/v1/users/${somebody.id}/accounts`,
      ada.token,
    )) as number[];
    expect(status).toBe(administers ? 200 : 403);
  });

  it('are those of ADMIN_ROLES, and the people of ADMIN_USER_IDS', async () => {
    const [ada, bob, somebody] = [
      await signUp(stack.auth),
      await signUp(stack.auth),
      await signUp(stack.auth),
    ];
    await giveRole(ada, 'owner');
    const path = `/api/v1/users/${somebody.id}/accounts`;
    expect(await outcome(stack.gatehouse, path, ada.token)).toEqual([403, 'AUTH_FORBIDDEN']);
    await withGatehouse(
      { ROLES: 'user,admin,owner', ADMIN_ROLES: 'owner', ADMIN_USER_IDS: bob.id },
      async (gatehouse) => {
        expect(await outcome(gatehouse, path, ada.token)).toEqual([200, 'ok']);
        expect(await outcome(gatehouse, path, bob.token)).toEqual([200, 'ok']);
        expect(await outcome(gatehouse, path, somebody.token)).toEqual([200, 'ok']);
        await giveRole(ada, 'admin');
        expect(await outcome(gatehouse, path, ada.token)).toEqual([403, 'AUTH_FORBIDDEN']);
      },
    );
  });
});

describe('SESSION_BINDING', () => {
  const me = '/api/v1/auth/me';

  it('require-sid refuses a token that names no session', async () => {
    const [named, unnamed] = [await signUp(stack.authWithSid), await signUp(stack.auth)];
    await withGatehouse({ SESSION_BINDING: 'require-sid' }, async (gatehouse) => {
      expect(await outcome(gatehouse, me, named.token)).toEqual([200, 'ok']);
      expect(await outcome(gatehouse, me, unnamed.token)).toEqual([401, 'AUTH_TOKEN_INVALID']);
    });
  });

  it('token-only looks at the user and not at sessions, and says so', async () => {
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

  it('token-only does without a session table', async () => {
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

  it('the claim may have another name', async () => {
    const ada = await signUp(stack.authWithSid);
    await withGatehouse({ JWT_SESSION_CLAIM: 'session_id' }, async (gatehouse) => {
      const { body } = await gatehouse.call('/api/v1/auth/session', { token: ada.token });
      expect(body.token.binding).toBe('user');
    });
  });
});

describe('who is refused', () => {
  it('is told how to authenticate, and without an error when no token was sent', async () => {
    const { status, headers, body } = await stack.gatehouse.call('/api/v1/auth/me');
    expect([status, body.code]).toEqual([401, 'AUTH_MISSING_TOKEN']);
    expect(headers.get('www-authenticate')).toBe('Bearer realm="gatehouse"');
  });

  it('cannot tell a bad token from one whose user is gone', async () => {
    const ada = await signUp(stack.auth);
    await stack.database.sql('delete from "user" where id = $1', [ada.id]);
    const seen = [];
    for (const token of [ada.token, `${ada.token}x`, 'a.b.c', 'nonsense']) {
      const { status, headers, body } = await stack.gatehouse.call('/api/v1/auth/me', {
        token,
      });
      const { requestId: _, ...rest } = body;
      seen.push(JSON.stringify([status, rest, headers.get('www-authenticate')]));
    }
    expect(new Set(seen).size).toBe(1);
    expect(seen[0]).toContain('error=\\"invalid_token\\"');
  });

  it.each([
    [
      'no space, which makes it another scheme',
      (token: string) => `Bearer${token}`,
      'AUTH_MISSING_TOKEN',
    ],
    ['a tab', (token: string) => `Bearer\t${token}`, 'AUTH_TOKEN_INVALID'],
    ['something after the token', (token: string) => `Bearer ${token} x`, 'AUTH_TOKEN_INVALID'],
    ['nothing after the scheme', () => 'Bearer', 'AUTH_TOKEN_INVALID'],
    ['another scheme', () => 'Basic YTpi', 'AUTH_MISSING_TOKEN'],
  ])('is refused for a header with %s', async (_what, header, code) => {
    const ada = await signUp(stack.auth);
    const { status, body } = await stack.gatehouse.call('/api/v1/auth/me', {
      headers: { authorization: header(ada.token) },
    });
    expect([status, body.code]).toEqual([401, code]);
  });

  it('is let in with the scheme in any case, and from that header alone', async () => {
    const ada = await signUp(stack.auth);
    const { status } = await stack.gatehouse.call('/api/v1/auth/me', {
      headers: { authorization: `bEARER ${ada.token}` },
    });
    expect(status).toBe(200);
    // RFC 6750 §2.1: one or more spaces. Twice, since the second time the token is remembered.
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

const answerWithLimit = async (limit: string, token: string) => {
  let answer: unknown;
  await withGatehouse({ JWT_MAX_LIFETIME_SECONDS: limit }, async (gatehouse) => {
    const { status, body } = await gatehouse.call('/api/v1/auth/me', { token });
    const { reason } = gatehouse.lines.find(({ event }) => event === 'auth.failed') ?? {};
    answer = [status, body.code, String(body.detail).includes('JWT_MAX_LIFETIME_SECONDS'), reason];
  });
  return answer;
};

it('names the limit to a genuine token that lives too long, and to no other one', async () => {
  const ada = await signUp(stack.authWithSid);
  const [header, payload, signature = ''] = ada.token.split('.');
  const forged = [header, payload, (signature[0] === 'A' ? 'B' : 'A') + signature.slice(1)].join(
    '.',
  );
  expect(await answerWithLimit('899', ada.token)).toEqual([
    401,
    'AUTH_TOKEN_INVALID',
    true,
    'lifetime',
  ]);
  expect(await answerWithLimit('899', forged)).toEqual([
    401,
    'AUTH_TOKEN_INVALID',
    false,
    'signature',
  ]);
});

describe('events', () => {
  it('say once for each token that it was accepted, and never what it is', async () => {
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

  it('say to operators, and not to the client, why a token was refused', async () => {
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

  it('are bounded, so that a flood of bad tokens cannot fill the disk', async () => {
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

it('never mixes up callers: 1,000 interleaved requests of 50 users', async () => {
  const people: TestUser[] = [];
  // A few at a time: each has a password to hash.
  while (people.length < 50) {
    people.push(...(await Promise.all(Array.from({ length: 5 }, () => signUp(stack.auth)))));
  }
  const answers: string[] = [];
  // A hundred in flight at any time: more would wait for a connection longer than the service lets them.
  const inFlight = Array.from({ length: 100 }, async (_, first) => {
    for (let i = first; i < 1000; i += 100) {
      const person = people[(i * 7 + Math.floor(i / 100)) % 50] as TestUser;
      const { body } = await stack.gatehouse.call('/api/v1/auth/me', { token: person.token });
      answers.push(
        body.id === person.id && body.email === person.email ? 'own' : JSON.stringify(body),
      );
    }
  });
  await Promise.all(inFlight);
  expect(answers).toHaveLength(1000);
  expect(answers.filter((answer) => answer !== 'own')).toEqual([]);
});
