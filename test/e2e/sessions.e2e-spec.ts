import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack()));
afterAll(() => stack.end());

/** The same person, signed in once more. */
async function signInAgain(person: TestUser): Promise<TestUser> {
  const { sessionToken } = await stack.authWithSid.signIn(person);
  return {
    ...person,
    session: sessionToken,
    token: await stack.authWithSid.tokenFor(sessionToken),
  };
}

const ask = (by: TestUser, path: string, method = 'GET') =>
  stack.gatehouse.call(`/api/v1/users/${path}`, { method, token: by.token });

const sidOf = (person: TestUser) => String(claimsOf(person.token)['sid']);

describe('listing sessions', () => {
  it('shows where one is signed in, newest first, with the own one marked and never a token', async () => {
    const first = await signUp(stack.authWithSid);
    await stack.database.sql('update session set "userAgent" = $1 where "userId" = $2', [
      'Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0',
      first.id,
    ]);
    const second = await signInAgain(first);
    const { body } = await ask(first, `${first.id}/sessions`);
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

  it('leaves out sessions that have expired', async () => {
    const ada = await signUp(stack.authWithSid);
    const other = await signInAgain(ada);
    await stack.database.sql(
      `update session set "expiresAt" = now() - interval '1 second' where id = $1`,
      [sidOf(other)],
    );
    expect((await ask(ada, `${ada.id}/sessions`)).body.total).toBe(1);
  });

  it('shows a hundred of thousands, counts them all, and leaves out the own one in no case', async () => {
    const ada = await signUp(stack.authWithSid);
    const insert = (when: string) =>
      stack.database.sql(
        `insert into session (id, token, "userId", "createdAt", "updatedAt", "expiresAt", "userAgent")
         select $1 || n || $2, gen_random_uuid(), $2, ${when}, now(), now() + interval '1 day',
           'Mozilla/5.0 (X11; Linux x86_64; rv:' || n || '.0) Gecko/20100101 Firefox/' || n || '.0' || repeat('x', 2000)
         from generate_series(1, 2500) n`,
        [when.includes('-') ? 'old-' : 'new-', ada.id],
      );
    const shown = async () => {
      const { body } = await ask(ada, `${ada.id}/sessions`);
      const items = body.items as { id: string; current: boolean; device: { browser: string } }[];
      expect(items).toHaveLength(100);
      expect(items.filter(({ current }) => current).map(({ id }) => id)).toEqual([sidOf(ada)]);
      return { total: body.total, items, place: items.findIndex(({ current }) => current) };
    };

    await insert(`now() - n * interval '1 minute'`);
    const first = await shown();
    expect([first.total, first.place]).toEqual([2501, 0]);
    expect(first.items[99]?.id).toBe(`old-99${ada.id}`);
    expect(first.items[99]?.device.browser).toBe('Firefox 99');

    await insert(`now() + n * interval '1 second'`);
    const second = await shown();
    expect([second.total, second.place]).toEqual([5001, 99]);
    expect(second.items[98]?.id).toBe(`new-${2500 - 98}${ada.id}`);

    // An admin who looks has no session of this user to find.
    const eve = await signUp(stack.authWithSid);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [eve.id]);
    const { body } = await ask(eve, `${ada.id}/sessions`);
    expect(body.items.filter(({ current }: { current: boolean }) => current)).toEqual([]);
    expect(body.items[99].id).toBe(`new-${2500 - 99}${ada.id}`);
  });

  it('is for oneself and admins', async () => {
    const [ada, eve] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    expect((await ask(eve, `${ada.id}/sessions`)).status).toBe(403);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [eve.id]);
    await until(async () => (await ask(eve, `${ada.id}/sessions`)).status, 200);
    expect((await ask(eve, 'nobody/sessions')).status).toBe(404);
  });
});

describe('ending sessions', () => {
  it('one: it is over at the next request, here and at Better-Auth, and the others are not', async () => {
    const ada = await signUp(stack.authWithSid);
    const other = await signInAgain(ada);
    const { status, body } = await ask(ada, `${ada.id}/sessions/${sidOf(other)}`, 'DELETE');
    expect([status, body.success, body.revoked]).toEqual([200, true, 1]);
    // A token that names no session could live on beside the session that is left.
    expect(Date.parse(body.residual)).toBeGreaterThan(Date.now());
    expect((await ask(other, other.id)).body.code).toBe('AUTH_SESSION_REVOKED');
    expect(await stack.auth.get('/get-session', other.session)).toBeNull();
    expect((await ask(ada, ada.id)).status).toBe(200);
    expect((await ask(ada, `${ada.id}/sessions/${sidOf(other)}`, 'DELETE')).status).toBe(404);
  });

  it('one of somebody else: as if it were not there', async () => {
    const [ada, eve] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
    expect((await ask(ada, `${ada.id}/sessions/${sidOf(eve)}`, 'DELETE')).status).toBe(404);
    expect((await ask(eve, eve.id)).status).toBe(200);
  });

  it('all, or all but the one in which it is asked for', async () => {
    const ada = await signUp(stack.authWithSid);
    const others = [await signInAgain(ada), await signInAgain(ada)];
    const kept = await ask(ada, `${ada.id}/sessions?except=current`, 'DELETE');
    expect([kept.status, kept.body.revoked]).toEqual([200, 2]);
    for (const other of others) expect((await ask(other, ada.id)).status).toBe(401);
    const all = await ask(ada, `${ada.id}/sessions`, 'DELETE');
    expect([all.status, all.body.revoked]).toEqual([200, 1]);
    expect((await ask(ada, ada.id)).body.code).toBe('AUTH_SESSION_REVOKED');
  });

  it('refuses to keep a session that the token does not name', async () => {
    const ada = await signUp(stack.auth);
    const { status, body } = await ask(ada, `${ada.id}/sessions?except=current`, 'DELETE');
    expect([status, body.errors[0].field]).toEqual([400, 'except']);
    expect((await ask(ada, `${ada.id}/sessions?except=all`, 'DELETE')).status).toBe(400);
  });

  it('goes on record', async () => {
    const ada = await signUp(stack.authWithSid);
    const other = await signInAgain(ada);
    await ask(ada, `${ada.id}/sessions/${sidOf(other)}`, 'DELETE');
    await ask(ada, `${ada.id}/sessions`, 'DELETE');
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
