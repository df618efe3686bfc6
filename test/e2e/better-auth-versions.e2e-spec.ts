import { readFileSync } from 'node:fs';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { BETTER_AUTH_PACKAGES, type BetterAuthPackage } from '../../tools/better-auth-packages.ts';
import { until } from '../support/app-process.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { claimsOf, signUp } from '../support/users.js';

/** `TEST_BETTER_AUTH=name` tests other installed packages, such as an alias of another version. */
const packages = (process.env['TEST_BETTER_AUTH']?.split(',') ??
  BETTER_AUTH_PACKAGES) as BetterAuthPackage[];

const versionOf = (name: string) =>
  (JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')) as { version: string })
    .version;

describe.each(packages.map((name) => [versionOf(name), name] as const))(
  'Better-Auth %s',
  (_version, name) => {
    let database: TestDatabase;
    let auth: BetterAuth;
    let authWithSid: BetterAuth;
    let gatehouse: RunningApp;

    beforeAll(async () => {
      database = await createDatabase({ empty: true });
      auth = await startBetterAuth({ package: name, databaseUrl: database.url, migrate: true });
      authWithSid = await startBetterAuth({
        package: name,
        databaseUrl: database.url,
        sid: true,
        publicOrigin: auth.origin,
      });
      const { code, stderr } = await runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url });
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      gatehouse = await startApp({ DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin });
    });
    afterAll(async () => {
      await gatehouse.close();
      await Promise.all([auth.stop(), authWithSid.stop()]);
      await database.drop();
    });

    /** The status and the code of `GET /auth/me`. */
    const me = async (token: string) => {
      const { status, body } = await gatehouse.call('/api/v1/auth/me', { token });
      return `${status} ${body.code ?? ''}`.trim();
    };
    const signUpAdmin = async () => {
      const admin = await signUp(authWithSid, 'Admin');
      await database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
      return admin;
    };

    it('issues tokens that are accepted, with and without a session id', async () => {
      const [without, withSid] = [await signUp(auth), await signUp(authWithSid)];
      expect(claimsOf(without.token)['sid']).toBeUndefined();
      expect(claimsOf(withSid.token)['sid']).toEqual(expect.any(String));
      expect(await me(without.token)).toBe('200');
      expect(await me(withSid.token)).toBe('200');
    });

    it('ends a token by a sign-out', async () => {
      const ada = await signUp(authWithSid);
      expect(await me(ada.token)).toBe('200');
      await authWithSid.signOut(ada.session);
      await until(() => me(ada.token), '401 AUTH_SESSION_REVOKED');
    });

    it('ends every token by a sign-out everywhere', async () => {
      const [ada, bob] = [await signUp(authWithSid), await signUp(auth)];
      await authWithSid.post('/revoke-sessions', {}, ada.session);
      await auth.post('/revoke-sessions', {}, bob.session);
      await until(() => me(ada.token), '401 AUTH_SESSION_REVOKED');
      await until(() => me(bob.token), '401 AUTH_SESSION_REVOKED');
    });

    it('bans, lifts a ban, changes a role and removes a user, and each applies here', async () => {
      const [admin, ada] = [await signUpAdmin(), await signUp(authWithSid)];
      await authWithSid.post('/admin/set-role', { userId: ada.id, role: 'admin' }, admin.session);
      await until(
        async () => (await gatehouse.call('/api/v1/users', { token: ada.token })).status,
        200,
      );
      await authWithSid.post('/admin/ban-user', { userId: ada.id }, admin.session);
      await until(() => me(ada.token), '403 USER_BANNED');
      await authWithSid.post('/admin/unban-user', { userId: ada.id }, admin.session);
      await until(() => me(ada.token), '401 AUTH_SESSION_REVOKED');
      await authWithSid.post('/admin/remove-user', { userId: ada.id }, admin.session);
      await until(() => me(ada.token), '401 AUTH_TOKEN_INVALID');
    });

    it('refuses a user who was banned here, and accepts a role that was given here', async () => {
      const [admin, ada, bob] = [
        await signUpAdmin(),
        await signUp(authWithSid),
        await signUp(authWithSid),
      ];
      const change = (path: string, method: string, body: object) =>
        gatehouse.call(`/api/v1/users/${path}`, { method, token: admin.token, body });
      expect((await change(`${ada.id}/ban`, 'POST', {})).status).toBe(200);
      await expect(authWithSid.signIn(ada)).rejects.toMatchObject({ status: 403 });
      expect((await change(`${bob.id}/role`, 'PUT', { role: 'admin' })).status).toBe(200);
      const listed = await authWithSid.get<{ users: unknown[] }>('/admin/list-users', bob.session);
      expect(listed.users.length).toBeGreaterThan(2);
    });

    it('impersonates a user, and the session ends with its admin', async () => {
      const [admin, ada] = [await signUpAdmin(), await signUp(authWithSid)];
      const { session } = await authWithSid.post<{ session: { token: string } }>(
        '/admin/impersonate-user',
        { userId: ada.id },
        admin.session,
      );
      const token = await authWithSid.tokenFor(session.token);
      expect(await me(token)).toBe('200');
      await database.sql(`update "user" set role = 'user' where id = $1`, [admin.id]);
      await until(() => me(token), '401 AUTH_SESSION_REVOKED');
    });
  },
);
