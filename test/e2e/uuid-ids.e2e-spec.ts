import { startBetterAuth } from '../../tools/better-auth.ts';
import { startApp } from '../support/test-app.js';
import { signUp } from '../support/users.js';
import { createDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';

it('treats a uuid in upper case as the same id, and records only one spelling', async () => {
  const database = await createDatabase({ empty: true });
  const auth = await startBetterAuth({
    databaseUrl: database.url,
    idType: 'uuid',
    migrate: true,
    sid: true,
  });
  await runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url });
  const gatehouse = await startApp({ DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin });
  try {
    const [admin, ada] = [await signUp(auth), await signUp(auth)];
    await database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
    const request = (method: string, path: string, body?: unknown) =>
      gatehouse.call(`/api/v1/users/${path}`, {
        method,
        token: admin.token,
        ...(body === undefined ? {} : { body }),
      });
    const own = await request('POST', `${admin.id.toUpperCase()}/ban`, {});
    expect([own.status, own.body.code]).toEqual([409, 'SELF_BAN']);

    expect((await request('POST', `${ada.id.toUpperCase()}/ban`, {})).body.id).toBe(ada.id);
    expect((await request('DELETE', `${ada.id.toUpperCase()}/sessions`)).status).toBe(200);
    expect((await request('GET', 'no-uuid')).status).toBe(404);
    const rows = await database.sql('select distinct target_user_id from gatehouse.audit_event');
    expect(rows).toEqual([{ target_user_id: ada.id }]);

    // The same holds for session ids and for `impersonatedBy`, which is a text column.
    const bob = await signUp(auth);
    const [{ id: sessionId } = { id: '' }] = await database.sql<{ id: string }>(
      'select id from session where "userId" = $1',
      [bob.id],
    );
    const ended = await request('DELETE', `${bob.id}/sessions/${sessionId.toUpperCase()}`);
    expect(ended.status).toBe(200);
    const [event] = await database.sql(
      `select before from gatehouse.audit_event where action = 'session.revoked'`,
    );
    expect(event).toEqual({ before: { sessionId } });
    await auth.signIn(bob);
    await auth.post('/admin/impersonate-user', { userId: bob.id }, admin.session);
    const { body } = await request('DELETE', `${admin.id.toUpperCase()}/sessions?except=current`);
    expect(body.revoked).toBe(1);
  } finally {
    await gatehouse.close();
    await auth.stop();
    await database.drop();
  }
});
