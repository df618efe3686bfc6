import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack()));
afterAll(() => stack.end());

/** Signs the same user in once more. */
async function signInAgain(person: TestUser): Promise<TestUser> {
  const { sessionToken } = await stack.authWithSid.signIn(person);
  return {
    ...person,
    session: sessionToken,
    token: await stack.authWithSid.tokenFor(sessionToken),
  };
}

const request = (actor: TestUser, path: string, method = 'GET') =>
  stack.gatehouse.call(`/api/v1/users/${path}`, { method, token: actor.token });

const sidOf = (person: TestUser) => String(claimsOf(person.token)['sid']);

describe('list of sessions', () => {
  it('lists the sessions of a user, newest first, marks the current one and omits tokens', async () => {
    const first = await signUp(stack.authWithSid);
    await stack.database.sql('update session set "userAgent" = $1 where "userId" = $2', [
      'Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0',
      first.id,
    ]);
    const second = await signInAgain(first);
    const { body } = await request(first, `${first.id}/sessions`);
    expect(body.total).toBe(2);
    expect(body.items.map(({ id, current }: never) => [id, current])).toEqual([
      [sidOf(second), false],
      [sidOf(first), true],
    ]);
    expect(body.items[1].device).toEqual({
      browser: 'Firefox 145',
      system: 'macOS',
      kind: 'desktop',
    });
    expect(JSON.stringify(body)).not.toContain(first.session);
  });

  it('omits expired sessions from the list of sessions', async () => {
    const ada = await signUp(stack.authWithSid);
    const other = await signInAgain(ada);
    await stack.database.sql(
      `update session set "expiresAt" = now() - interval '1 second' where id = $1`,
      [sidOf(other)],
    );
    expect((await request(ada, `${ada.id}/sessions`)).body.total).toBe(1);
  });

  it('lists 100 of thousands of sessions, counts them all and always includes the current one', async () => {
    const ada = await signUp(stack.authWithSid);
    const insert = (when: string) =>
      stack.database.sql(
        `insert into session (id, token, "userId", "createdAt", "updatedAt", "expiresAt", "userAgent")
         select $1 || n || $2, gen_random_uuid(), $2, ${when}, now(), now() + interval '1 day',
           'Mozilla/5.0 (X11; Linux x86_64; rv:' || n || '.0) Gecko/20100101 Firefox/' || n || '.0' || repeat('x', 2000)
         from generate_series(1, 2500) n`,
        [when.includes('-') ? 'old-' : 'new-', ada.id],
      );
    const listSessions = async () => {
      const { body } = await request(ada, `${ada.id}/sessions`);
      const items = body.items as { id: string; current: boolean; device: { browser: string } }[];
      expect(items).toHaveLength(100);
      expect(items.filter(({ current }) => current).map(({ id }) => id)).toEqual([sidOf(ada)]);
      return { total: body.total, items, position: items.findIndex(({ current }) => current) };
    };

    await insert(`now() - n * interval '1 minute'`);
    const first = await listSessions();
    expect([first.total, first.position]).toEqual([2501, 0]);
    expect(first.items[99]?.id).toBe(`old-99${ada.id}`);
    expect(first.items[99]?.device.browser).toBe('Firefox 99');

    await insert(`now() + n * interval '1 second'`);
    const second = await listSessions();
    expect([second.total, second.position]).toEqual([5001, 99]);
    expect(second.items[98]?.id).toBe(`new-${2500 - 98}${ada.id}`);

    // The list has no current session when an admin requests the sessions of another user.
    const eve = await signUp(stack.authWithSid);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [eve.id]);
    const { body } = await request(eve, `${ada.id}/sessions`);
    expect(body.items.filter(({ current }: { current: boolean }) => current)).toEqual([]);
    expect(body.items[99].id).toBe(`new-${2500 - 99}${ada.id}`);
  });

  it('lets only the user and admins list the sessions of a user', async () => {
    const [ada, eve] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    expect((await request(eve, `${ada.id}/sessions`)).status).toBe(403);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [eve.id]);
    await until(async () => (await request(eve, `${ada.id}/sessions`)).status, 200);
    expect((await request(eve, 'nobody/sessions')).body.code).toBe('USER_NOT_FOUND');
  });
});

describe('revocation of sessions', () => {
  it('revokes one session immediately, here and at Better-Auth, and keeps the others', async () => {
    const ada = await signUp(stack.authWithSid);
    const other = await signInAgain(ada);
    const { status, body } = await request(ada, `${ada.id}/sessions/${sidOf(other)}`, 'DELETE');
    expect([status, body.success, body.revoked]).toEqual([200, true, 1]);
    // A token without `sid` stays valid as long as another session of the user exists.
    expect(Date.parse(body.residual)).toBeGreaterThan(Date.now());
    expect((await request(other, other.id)).body.code).toBe('AUTH_SESSION_REVOKED');
    expect(await stack.auth.get('/get-session', other.session)).toBeNull();
    expect((await request(ada, ada.id)).status).toBe(200);
    const again = await request(ada, `${ada.id}/sessions/${sidOf(other)}`, 'DELETE');
    expect([again.status, again.body.code]).toEqual([404, 'SESSION_NOT_FOUND']);
  });

  it('responds with SESSION_NOT_FOUND to the revocation of a session of another user', async () => {
    const [ada, eve] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    const answer = await request(ada, `${ada.id}/sessions/${sidOf(eve)}`, 'DELETE');
    expect([answer.status, answer.body.code]).toEqual([404, 'SESSION_NOT_FOUND']);
    expect((await request(eve, eve.id)).status).toBe(200);
  });

  it('revokes all sessions, or all except the current one', async () => {
    const ada = await signUp(stack.authWithSid);
    const others = [await signInAgain(ada), await signInAgain(ada)];
    const kept = await request(ada, `${ada.id}/sessions?except=current`, 'DELETE');
    expect([kept.status, kept.body.revoked]).toEqual([200, 2]);
    for (const other of others) expect((await request(other, ada.id)).status).toBe(401);
    const all = await request(ada, `${ada.id}/sessions`, 'DELETE');
    expect([all.status, all.body.revoked]).toEqual([200, 1]);
    expect((await request(ada, ada.id)).body.code).toBe('AUTH_SESSION_REVOKED');
  });

  it('refuses to keep the current session when the token does not name it', async () => {
    const [ada, admin] = [await signUp(stack.auth), await signUp(stack.authWithSid)];
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
    await until(async () => (await request(admin, ada.id)).status, 200);
    // The token of the admin names a session, but not one of this user.
    for (const actor of [ada, admin]) {
      const { status, body } = await request(actor, `${ada.id}/sessions?except=current`, 'DELETE');
      expect([status, body.errors[0].field]).toEqual([400, 'except']);
    }
    expect((await request(ada, `${ada.id}/sessions?except=all`, 'DELETE')).status).toBe(400);
  });

  it('records the revocation of one and of all sessions in the audit log', async () => {
    const ada = await signUp(stack.authWithSid);
    const other = await signInAgain(ada);
    await request(ada, `${ada.id}/sessions/${sidOf(other)}`, 'DELETE');
    await request(ada, `${ada.id}/sessions`, 'DELETE');
    const rows = await stack.database.sql(
      'select action, before, after from gatehouse.audit_event where target_user_id = $1 order by id',
      [ada.id],
    );
    expect(rows).toEqual([
      { action: 'session.revoked', before: { sessionId: sidOf(other) }, after: null },
      { action: 'session.revoked_all', before: null, after: { revoked: 1, kept: null } },
    ]);
  });
});
