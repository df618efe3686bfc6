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
class RoleController {
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

@Module({ controllers: [RoleController] })
class RoleModule {}

/** Impersonates the user through Better-Auth's admin plugin. Returns that session and its token. */
async function impersonate(auth: BetterAuth, admin: TestUser, user: TestUser): Promise<TestUser> {
  const { session } = await auth.post<{ session: { token: string } }>(
    '/admin/impersonate-user',
    { userId: user.id },
    admin.session,
  );
  return { ...user, session: session.token, token: await auth.tokenFor(session.token) };
}

const outcomeOf = async (gatehouse: RunningApp, { token }: TestUser, path = ME) => {
  const { status, body } = await gatehouse.call(path, { token });
  return `${status} ${body?.code ?? 'ok'}`;
};

describe.each(['off', 'on'])('impersonated session with CHANGE_FEED=%s', (feed) => {
  let stack: Stack;
  let withRoles: RunningApp;
  beforeAll(async () => {
    stack = await startStack({}, { CHANGE_FEED: feed, ROLES: 'user,admin,owner,support' });
    withRoles = await startApp(
      {
        DATABASE_URL: stack.database.url,
        BETTER_AUTH_URL: stack.auth.origin,
        CHANGE_FEED: feed,
        ROLES: 'user,admin,owner,support',
        ADMIN_ROLES: 'admin,owner',
      },
      { modules: [RoleModule] },
    );
    if (feed === 'on') {
      for (const { http } of [stack.gatehouse, withRoles]) {
        const state = async () => (await http.get('/health')).body.parts.changeFeed.state as string;
        await until(state, 'connected');
      }
    }
  });
  afterAll(async () => {
    await withRoles.close();
    await stack.end();
  });

  const giveRole = (user: TestUser, role: string) =>
    stack.database.sql('update "user" set role = $1 where id = $2', [role, user.id]);

  async function open(auth: BetterAuth) {
    const [admin, ada] = [await signUp(auth), await signUp(auth)];
    await giveRole(admin, 'admin');
    // Without `sid` another session of the user would validate the token as well.
    if (auth === stack.auth) await auth.signOut(ada.session);
    const impersonated = await impersonate(auth, admin, ada);
    expect(await outcomeOf(stack.gatehouse, impersonated)).toBe('200 ok');
    return { admin, ada, impersonated };
  }

  const bySql = (sql: string) => (_: BetterAuth, admin: TestUser) =>
    stack.database.sql(sql, [admin.id]);

  describe.each(['auth', 'authWithSid'] as const)('tokens of %s', (issuer) => {
    it.each<
      [string, (auth: BetterAuth, admin: TestUser, otherAdmin: TestUser) => Promise<unknown>]
    >([
      [
        'banned at Better-Auth',
        (auth, admin, otherAdmin) =>
          auth.post('/admin/ban-user', { userId: admin.id }, otherAdmin.session),
      ],
      [
        'demoted at Better-Auth',
        (auth, admin, otherAdmin) =>
          auth.post('/admin/set-role', { userId: admin.id, role: 'user' }, otherAdmin.session),
      ],
      [
        'deleted at Better-Auth',
        (auth, admin, otherAdmin) =>
          auth.post('/admin/remove-user', { userId: admin.id }, otherAdmin.session),
      ],
      ['signed out at Better-Auth', (auth, admin) => auth.signOut(admin.session)],
      [
        'signed out everywhere, and in again later',
        async (auth, admin) => {
          await auth.post('/revoke-sessions', {}, admin.session);
          await auth.signIn(admin);
          // A session that is one second younger would still count, as with tokens.
          await stack.database.sql(
            `update session set "createdAt" = "createdAt" + interval '2 s' where "userId" = $1`,
            [admin.id],
          );
        },
      ],
      ['banned by SQL', bySql('update "user" set banned = true where id = $1')],
      ['demoted by SQL', bySql(`update "user" set role = 'user' where id = $1`)],
      [
        'without a session that has not expired',
        bySql(
          `update session set "expiresAt" = now() - interval '1 s' where "userId" = $1 and "impersonatedBy" is null`,
        ),
      ],
    ])(
      'ends an impersonated session at the next request when its admin is %s',
      async (_what, end) => {
        const auth = stack[issuer];
        const otherAdmin = await signUp(auth);
        await giveRole(otherAdmin, 'admin');
        const { admin, impersonated } = await open(auth);
        await end(auth, admin, otherAdmin);
        expect(await outcomeOf(stack.gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
      },
    );

    it('keeps an impersonated session when the ban of its admin has ended', async () => {
      const { admin, impersonated } = await open(stack[issuer]);
      await stack.database.sql(
        `update "user" set banned = true, "banExpires" = now() - interval '1 s' where id = $1`,
        [admin.id],
      );
      expect(await outcomeOf(stack.gatehouse, impersonated)).toBe('200 ok');
    });

    it('denies admin rights to an impersonated session even when its user is promoted', async () => {
      const { admin, ada, impersonated } = await open(stack[issuer]);
      await giveRole(ada, 'owner,admin,support');
      expect(await outcomeOf(withRoles, impersonated, '/api/v1/for-admins')).toBe(
        '403 AUTH_FORBIDDEN',
      );
      expect(await outcomeOf(withRoles, impersonated, '/api/v1/for-owners')).toBe(
        '403 AUTH_FORBIDDEN',
      );
      expect(await outcomeOf(withRoles, impersonated, `/api/v1/for/${admin.id}`)).toBe(
        '403 AUTH_FORBIDDEN',
      );
      expect(await outcomeOf(withRoles, impersonated, `/api/v1/for/${ada.id}`)).toBe('200 ok');
      expect(await outcomeOf(withRoles, impersonated, '/api/v1/for-support')).toBe('200 ok');
      expect(await outcomeOf(withRoles, impersonated, '/api/v1/users')).toBe('403 AUTH_FORBIDDEN');
      const promotion = await withRoles.call(`/api/v1/users/${ada.id}/role`, {
        method: 'PUT',
        token: impersonated.token,
        body: { role: ['admin'] },
      });
      expect(promotion.status).toBe(403);
    });

    it('denies an impersonated session the admin rights of ADMIN_USER_IDS', async () => {
      const { ada, impersonated } = await open(stack[issuer]);
      const gatehouse = await startApp({
        DATABASE_URL: stack.database.url,
        BETTER_AUTH_URL: stack.auth.origin,
        ADMIN_USER_IDS: ada.id,
      });
      try {
        expect(await outcomeOf(gatehouse, impersonated, '/api/v1/users')).toBe(
          '403 AUTH_FORBIDDEN',
        );
      } finally {
        await gatehouse.close();
      }
    });

    it('logs and records the admin of an impersonated session', async () => {
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

  it('shows the admin of an impersonated session to admins only', async () => {
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

  it('binds a token without sid to a session of the user before an impersonated one', async () => {
    const [admin, ada] = [await signUp(stack.auth), await signUp(stack.auth)];
    await giveRole(admin, 'admin');
    await impersonate(stack.auth, admin, ada);
    await stack.database.sql(
      `update session set "expiresAt" = now() + interval '90 days' where "userId" = $1 and "impersonatedBy" is not null`,
      [ada.id],
    );
    const later = { ...ada, token: await stack.auth.tokenFor(ada.session) };
    await giveRole(admin, 'user');
    expect(await outcomeOf(stack.gatehouse, later)).toBe('200 ok');
  });

  it('accepts a token without sid by an impersonated session when other sessions have expired', async () => {
    const [admin, ada] = [await signUp(stack.auth), await signUp(stack.auth)];
    await giveRole(admin, 'admin');
    await stack.database.sql(
      `update session set "expiresAt" = now() - interval '1 s' where "userId" = $1`,
      [ada.id],
    );
    const impersonated = await impersonate(stack.auth, admin, ada);
    expect(await outcomeOf(stack.gatehouse, impersonated)).toBe('200 ok');
  });

  it('refuses an impersonated session whose admin has only an impersonated session', async () => {
    const { admin, impersonated } = await open(stack.authWithSid);
    await stack.database.sql('update session set "impersonatedBy" = $1 where "userId" = $1', [
      admin.id,
    ]);
    expect(await outcomeOf(stack.gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
  });
});

it.each<ServerOptions['idType']>(['uuid', 'serial'])(
  'finds the admin of an impersonated session with ids of type %s',
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
      expect(await outcomeOf(gatehouse, impersonated)).toBe('200 ok');
      await database.sql(`update "user" set banned = true where id::text = $1`, [admin.id]);
      expect(await outcomeOf(gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
      await database.sql(`update "user" set banned = false where id::text = $1`, [admin.id]);
      expect(await outcomeOf(gatehouse, impersonated)).toBe('200 ok');
      await database.sql(
        `update session set "impersonatedBy" = 'no id' where "impersonatedBy" is not null`,
      );
      expect(await outcomeOf(gatehouse, impersonated)).toBe('401 AUTH_SESSION_REVOKED');
    } finally {
      await gatehouse.close();
      await auth.stop();
      await database.drop();
    }
  },
);
