import { Controller, Get, Module } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import type { BetterAuth } from '../../tools/better-auth.ts';
import type { ServerOptions } from '../../tools/better-auth-server.ts';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { Roles, SelfOrAdmin } from '../../src/access/decorators.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { createDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

const ME = '/api/v1/auth/me';
const SESSION = '/api/v1/auth/session';

@Controller()
@ApiExcludeController()
class OwnController {
  @Get('for-admins')
  @Roles('admin')
  admins() {
    return [];
  }

  @Get('for-owners')
  @Roles('owner')
  owners() {
    return [];
  }

  @Get('for-support')
  @Roles('support')
  support() {
    return [];
  }

  @Get('for/:id')
  @SelfOrAdmin()
  self() {
    return [];
  }
}

@Module({ controllers: [OwnController] })
class OwnModule {}

/** A token of the impersonated session that Better-Auth's own admin plugin opens. */
async function impersonate(auth: BetterAuth, admin: TestUser, user: TestUser): Promise<TestUser> {
  const { session } = await auth.post<{ session: { token: string } }>(
    '/admin/impersonate-user',
    { userId: user.id },
    admin.session,
  );
  return { ...user, session: session.token, token: await auth.tokenFor(session.token) };
}

const verdict = async (gatehouse: RunningApp, { token }: TestUser, path = ME) => {
  const { status, body } = await gatehouse.call(path, { token });
  return `${status} ${body?.code ?? 'ok'}`;
};

describe.each(['off', 'on'])('with CHANGE_FEED=%s, an impersonated session', (feed) => {
  let stack: Stack;
  let own: RunningApp;
  beforeAll(async () => {
    stack = await startStack({}, { CHANGE_FEED: feed, ROLES: 'user,admin,owner,support' });
    own = await startApp(
      {
        DATABASE_URL: stack.database.url,
        BETTER_AUTH_URL: stack.auth.origin,
        CHANGE_FEED: feed,
        ROLES: 'user,admin,owner,support',
        ADMIN_ROLES: 'admin,owner',
      },
      [OwnModule],
    );
    if (feed === 'on') {
      for (const { http } of [stack.gatehouse, own]) {
        const state = async () => (await http.get('/health')).body.parts.changeFeed.state as string;
        await until(state, 'listening');
      }
    }
  });
  afterAll(async () => {
    await own.close();
    await stack.end();
  });

  const giveRole = (person: TestUser, role: string) =>
    stack.database.sql('update "user" set role = $1 where id = $2', [role, person.id]);

  async function open(auth: BetterAuth) {
    const [admin, ada] = [await signUp(auth), await signUp(auth)];
    await giveRole(admin, 'admin');
    // Without `sid` another session of the user would vouch for the token as well.
    if (auth === stack.auth) await auth.signOut(ada.session);
    const impersonated = await impersonate(auth, admin, ada);
    expect(await verdict(stack.gatehouse, impersonated)).toBe('200 ok');
    return { admin, ada, impersonated };
  }

  const byHand = (sql: string) => (_: BetterAuth, admin: TestUser) =>
    stack.database.sql(sql, [admin.id]);

  describe.each(['auth', 'authWithSid'] as const)('with tokens of %s', (issuer) => {
    it.each<[string, (auth: BetterAuth, admin: TestUser, boss: TestUser) => Promise<unknown>]>([
      [
        'banned at Better-Auth',
        (auth, admin, boss) => auth.post('/admin/ban-user', { userId: admin.id }, boss.session),
      ],
      [
        'demoted at Better-Auth',
        (auth, admin, boss) =>
          auth.post('/admin/set-role', { userId: admin.id, role: 'user' }, boss.session),
      ],
      [
        'deleted at Better-Auth',
        (auth, admin, boss) => auth.post('/admin/remove-user', { userId: admin.id }, boss.session),
      ],
      ['signed out at Better-Auth', (auth, admin) => auth.signOut(admin.session)],
      [
        'signed out everywhere, and in again later',
        async (auth, admin) => {
          await auth.post('/revoke-sessions', {}, admin.session);
          await auth.signIn(admin);
          // A session may be a second younger, as with tokens.
          await stack.database.sql(
            `update session set "createdAt" = "createdAt" + interval '2 s' where "userId" = $1`,
            [admin.id],
          );
        },
      ],
      ['banned by SQL', byHand('update "user" set banned = true where id = $1')],
      ['demoted by SQL', byHand(`update "user" set role = 'user' where id = $1`)],
      [
        'without a session that has not expired',
        byHand(
          `update session set "expiresAt" = now() - interval '1 s' where "userId" = $1 and "impersonatedBy" is null`,
        ),
      ],
    ])('ends at the next request when its admin is %s', async (_what, end) => {
      const auth = stack[issuer];
      const boss = await signUp(auth);
      await giveRole(boss, 'admin');
      const { admin, impersonated } = await open(auth);
      await end(auth, admin, boss);
      expect(await verdict(stack.gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
    });

    it('goes on when the ban of its admin has ended', async () => {
      const { admin, impersonated } = await open(stack[issuer]);
      await stack.database.sql(
        `update "user" set banned = true, "banExpires" = now() - interval '1 s' where id = $1`,
        [admin.id],
      );
      expect(await verdict(stack.gatehouse, impersonated)).toBe('200 ok');
    });

    it('has no admin rights, even when its user is promoted', async () => {
      const { admin, ada, impersonated } = await open(stack[issuer]);
      await giveRole(ada, 'owner,admin,support');
      expect(await verdict(own, impersonated, '/api/v1/for-admins')).toBe('403 AUTH_FORBIDDEN');
      expect(await verdict(own, impersonated, '/api/v1/for-owners')).toBe('403 AUTH_FORBIDDEN');
      expect(await verdict(own, impersonated, `/api/v1/for/${admin.id}`)).toBe(
        '403 AUTH_FORBIDDEN',
      );
      expect(await verdict(own, impersonated, `/api/v1/for/${ada.id}`)).toBe('200 ok');
      expect(await verdict(own, impersonated, '/api/v1/for-support')).toBe('200 ok');
      expect(await verdict(own, impersonated, '/api/v1/users')).toBe('403 AUTH_FORBIDDEN');
      const promotion = await own.call(`/api/v1/users/${ada.id}/role`, {
        method: 'PUT',
        token: impersonated.token,
        body: { role: ['admin'] },
      });
      expect(promotion.status).toBe(403);
    });

    it('has none of ADMIN_USER_IDS either', async () => {
      const { ada, impersonated } = await open(stack[issuer]);
      const gatehouse = await startApp({
        DATABASE_URL: stack.database.url,
        BETTER_AUTH_URL: stack.auth.origin,
        ADMIN_USER_IDS: ada.id,
      });
      try {
        expect(await verdict(gatehouse, impersonated, '/api/v1/users')).toBe('403 AUTH_FORBIDDEN');
      } finally {
        await gatehouse.close();
      }
    });

    it('is logged and recorded with its admin', async () => {
      const { admin, ada, impersonated } = await open(stack[issuer]);
      await stack.gatehouse.call(`/api/v1/users/${ada.id}`, {
        method: 'PATCH',
        token: impersonated.token,
        body: { name: 'Changed for Ada' },
        headers: { 'x-request-id': `by ${issuer}`.replace(' ', '-') },
      });
      const rows = await stack.database.sql(
        'select actor_id, impersonator_id from gatehouse.audit_event where target_user_id = $1',
        [ada.id],
      );
      expect(rows).toEqual([{ actor_id: ada.id, impersonator_id: admin.id }]);
      const line = stack.gatehouse.lines.find(
        ({ msg, clientRequestId }) => msg === 'request' && clientRequestId === `by-${issuer}`,
      );
      expect(line).toMatchObject({ userId: ada.id, impersonatedBy: admin.id });
    });
  });

  it('shows its admin to admins only', async () => {
    const { admin, ada, impersonated } = await open(stack.authWithSid);
    const sid = claimsOf(impersonated.token)['sid'];
    await stack.database.sql(
      `update session set "ipAddress" = '203.0.113.7', "userAgent" = 'Secret/1.0 Firefox/145.0' where id = $1`,
      [sid],
    );
    const listedFor = async ({ token }: TestUser) => {
      const path = `/api/v1/users/${ada.id}/sessions`;
      const { body } = await stack.gatehouse.call(path, { token });
      return (body.items as { id: string }[]).find(({ id }) => id === sid);
    };
    const hidden = {
      ipAddress: null,
      userAgent: null,
      device: { browser: null, system: null, kind: 'unknown' },
      impersonatedBy: null,
    };
    expect(await listedFor(ada)).toMatchObject(hidden);
    expect(await listedFor(impersonated)).toMatchObject(hidden);
    const { body } = await stack.gatehouse.call(SESSION, impersonated);
    expect(body.session).toMatchObject({ id: sid, ...hidden });
    expect(await listedFor(admin)).toMatchObject({
      ipAddress: '203.0.113.7',
      userAgent: 'Secret/1.0 Firefox/145.0',
      impersonatedBy: admin.id,
    });
  });

  it('is not what vouches for a token without sid while the user has a session of their own', async () => {
    const [admin, ada] = [await signUp(stack.auth), await signUp(stack.auth)];
    await giveRole(admin, 'admin');
    await impersonate(stack.auth, admin, ada);
    await stack.database.sql(
      `update session set "expiresAt" = now() + interval '90 days' where "userId" = $1 and "impersonatedBy" is not null`,
      [ada.id],
    );
    const later = { ...ada, token: await stack.auth.tokenFor(ada.session) };
    await giveRole(admin, 'user');
    expect(await verdict(stack.gatehouse, later)).toBe('200 ok');
  });

  it('vouches for a token without sid when the sessions of its user have expired', async () => {
    const [admin, ada] = [await signUp(stack.auth), await signUp(stack.auth)];
    await giveRole(admin, 'admin');
    await stack.database.sql(
      `update session set "expiresAt" = now() - interval '1 s' where "userId" = $1`,
      [ada.id],
    );
    const impersonated = await impersonate(stack.auth, admin, ada);
    expect(await verdict(stack.gatehouse, impersonated)).toBe('200 ok');
  });

  it('cannot be the session from which another is impersonated', async () => {
    const { admin, impersonated } = await open(stack.authWithSid);
    await stack.database.sql('update session set "impersonatedBy" = $1 where "userId" = $1', [
      admin.id,
    ]);
    expect(await verdict(stack.gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
  });
});

it.each<ServerOptions['idType']>(['uuid', 'serial'])(
  'the admin of an impersonated session is found where ids are %s',
  async (idType) => {
    const database = await createDatabase({ empty: true });
    const auth = await startBetterAuth({
      databaseUrl: database.url,
      ...(idType === undefined ? {} : { idType }),
      migrate: true,
      sid: true,
    });
    await runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url });
    const gatehouse = await startApp({ DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin });
    try {
      const [admin, ada] = [await signUp(auth), await signUp(auth)];
      await database.sql(`update "user" set role = 'admin' where id::text = $1`, [admin.id]);
      const impersonated = await impersonate(auth, admin, ada);
      expect(await verdict(gatehouse, impersonated)).toBe('200 ok');
      await database.sql(`update "user" set banned = true where id::text = $1`, [admin.id]);
      expect(await verdict(gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
      await database.sql(`update "user" set banned = false where id::text = $1`, [admin.id]);
      expect(await verdict(gatehouse, impersonated)).toBe('200 ok');
      await database.sql(
        `update session set "impersonatedBy" = 'no id' where "impersonatedBy" is not null`,
      );
      expect(await verdict(gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
    } finally {
      await gatehouse.close();
      await auth.stop();
      await database.drop();
    }
  },
);
