import { BetterAuthError } from '../../tools/better-auth.ts';
import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;
beforeAll(async () => {
  stack = await startStack({}, { ROLES: 'user,support,admin' });
  admin = await newAdmin();
});
afterAll(() => stack.end());

async function newAdmin(): Promise<TestUser> {
  const person = await signUp(stack.authWithSid, 'Admin');
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [person.id]);
  return person;
}

const newUser = () => signUp(stack.authWithSid);

const ask = (by: TestUser, method: string, path: string, body?: unknown, headers = {}) =>
  stack.gatehouse.call(`/api/v1/users/${path}`, {
    method,
    token: by.token,
    headers,
    ...(body === undefined ? {} : { body }),
  });

const events = (targetId: string) =>
  stack.database.sql('select * from gatehouse.audit_event where target_user_id = $1 order by id', [
    targetId,
  ]);

describe('reading a user', () => {
  it('is for oneself and for admins, and shows no more than the document says', async () => {
    const [ada, eve] = [await newUser(), await newUser()];
    for (const by of [ada, admin]) {
      const { status, headers, body } = await ask(by, 'GET', ada.id);
      expect([status, body.email, headers.get('etag')]).toEqual([
        200,
        ada.email,
        expect.stringMatching(/^"[\w-]{27}"$/),
      ]);
    }
    expect((await ask(eve, 'GET', ada.id)).status).toBe(403);
    expect((await ask(eve, 'GET', 'nobody')).status).toBe(403);
    expect((await ask(admin, 'GET', 'nobody')).status).toBe(404);
  });
});

it('does not send again what the client has already', async () => {
  const ada = await newUser();
  const tag = (await ask(ada, 'GET', ada.id)).headers.get('etag') ?? '';
  const read = async (known: string) => {
    const { status, text, headers } = await stack.gatehouse.http
      .get(`/api/v1/users/${ada.id}`)
      .set('Authorization', `Bearer ${ada.token}`)
      .set('If-None-Match', known);
    return [status, text, headers['etag']] as unknown;
  };
  expect(await read(tag)).toEqual([304, '', tag]);
  expect(await read('"another"')).toEqual([200, expect.stringContaining(ada.id), tag]);
});

it('a ban that PostgreSQL lets end at infinity is one for ever, and can be lifted', async () => {
  const eve = await newUser();
  await stack.database.sql(
    `update "user" set banned = true, "banExpires" = 'infinity' where id = $1`,
    [eve.id],
  );
  const read = await ask(admin, 'GET', eve.id);
  expect([read.status, read.body.banned, read.body.banExpires]).toEqual([200, true, null]);
  const renamed = await ask(admin, 'PATCH', eve.id, { name: 'Eve' });
  expect([renamed.status, renamed.body.name, renamed.body.banned]).toEqual([200, 'Eve', true]);
  const lifted = await ask(admin, 'DELETE', `${eve.id}/ban`);
  expect([lifted.status, lifted.body.banned]).toEqual([200, false]);
});

describe('changing name and picture', () => {
  it('trims, writes updatedAt, goes on record, and Better-Auth sees it', async () => {
    const ada = await newUser();
    const { status, body } = await ask(ada, 'PATCH', ada.id, {
      name: '  Countess  ',
      image: 'https://example.com/a.png',
    });
    expect([status, body.name, body.image]).toEqual([200, 'Countess', 'https://example.com/a.png']);
    expect(Date.parse(body.updatedAt)).toBeGreaterThan(Date.parse(body.createdAt));
    const { user } = await stack.auth.get<{ user: { name: string } }>('/get-session', ada.session);
    expect(user.name).toBe('Countess');
    expect(await events(ada.id)).toMatchObject([
      {
        action: 'user.updated',
        actor_id: ada.id,
        before: { name: 'Ada Lovelace', image: null },
        after: { name: 'Countess', image: 'https://example.com/a.png' },
        ip: '127.0.0.1',
      },
    ]);
    expect((await ask(ada, 'PATCH', ada.id, { image: null })).body.image).toBeNull();
  });

  it('that changes nothing leaves no trace', async () => {
    const ada = await newUser();
    const before = (await ask(ada, 'GET', ada.id)).body;
    expect((await ask(ada, 'PATCH', ada.id, { name: 'Ada Lovelace' })).body).toEqual(before);
    expect((await ask(ada, 'PATCH', ada.id, {})).body).toEqual(before);
    expect(await events(ada.id)).toEqual([]);
  });

  it.each([
    [{ name: '' }, 'name'],
    [{ name: '   ' }, 'name'],
    [{ name: 'a'.repeat(101) }, 'name'],
    [{ name: 'a\0b' }, 'name'],
    [{ name: null }, 'name'],
    [{ name: 5 }, 'name'],
    [{ name: ['a'] }, 'name'],
    [{ image: 'javascript:alert(1)' }, 'image'],
    [{ image: 'ftp://example.com/a' }, 'image'],
    [{ image: `https://example.com/${'a'.repeat(2048)}` }, 'image'],
    [{ email: 'new@example.com' }, 'email'],
    [{ role: 'admin' }, 'role'],
    [{ emailVerified: true }, 'emailVerified'],
    [{ banned: false }, 'banned'],
    [{ id: 'x' }, 'id'],
    [{ $or: [] }, '$or'],
  ])('refuses %j by name, and changes nothing', async (body, field) => {
    const ada = await newUser();
    const answer = await ask(ada, 'PATCH', ada.id, body);
    expect([answer.status, answer.body.code]).toEqual([400, 'VALIDATION_ERROR']);
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toContain(field);
    expect(await events(ada.id)).toEqual([]);
  });

  it.each([
    ['an array', '[{"name":"x"}]'],
    ['3,000 levels', `{"image":${'['.repeat(3000)}${']'.repeat(3000)}}`],
    ['half a character', '{"name":"\\ud800"}'],
  ])('refuses a body that is %s', async (_what, body) => {
    const ada = await newUser();
    const { status } = await fetch(`${stack.gatehouse.url}/api/v1/users/${ada.id}`, {
      method: 'PATCH',
      headers: { authorization: `Bearer ${ada.token}`, 'content-type': 'application/json' },
      body,
    });
    expect(status).toBe(400);
  });

  it('does not take __proto__ for anything', async () => {
    const ada = await newUser();
    const response = await fetch(`${stack.gatehouse.url}/api/v1/users/${ada.id}`, {
      method: 'PATCH',
      headers: { authorization: `Bearer ${ada.token}`, 'content-type': 'application/json' },
      body: '{"__proto__":{"role":"admin"}}',
    });
    expect(response.status).toBe(400);
    expect((await ask(ada, 'GET', ada.id)).body.role).toBe('user');
  });
});

describe('If-Match', () => {
  it.each([
    ['*', 200],
    ['"something-else"', 412],
    ['W/"x"', 412],
    ['"a,b", "c"', 412],
    ['unquoted', 400],
    ['"half', 400],
    [',', 400],
  ])('%s answers %d', async (ifMatch, status) => {
    const ada = await newUser();
    const answer = await ask(ada, 'PATCH', ada.id, { name: 'New' }, { 'if-match': ifMatch });
    expect(answer.status).toBe(status);
  });
});

describe('roles', () => {
  it('are given by admins, one or several, and Better-Auth shows them', async () => {
    const ada = await newUser();
    const { status, body } = await ask(admin, 'PUT', `${ada.id}/role`, {
      role: ['support', 'user'],
    });
    expect([status, body.role, body.roles]).toEqual([200, 'support,user', ['support', 'user']]);
    const { users } = await stack.auth.get<{ users: { id: string; role: string }[] }>(
      '/admin/list-users?limit=100',
      admin.session,
    );
    expect(users.find(({ id }) => id === ada.id)?.role).toBe('support,user');
    expect(await events(ada.id)).toMatchObject([
      { action: 'user.role_changed', before: { role: 'user' }, after: { role: 'support,user' } },
    ]);
  });

  it.each([
    [{ role: 'emperor' }],
    [{ role: [] }],
    [{ role: ['user', 'user'] }],
    [{}],
    [{ role: 'a,b' }],
  ])('refuses %j', async (body) => {
    const ada = await newUser();
    const answer = await ask(admin, 'PUT', `${ada.id}/role`, body);
    expect([answer.status, answer.body.errors[0].field]).toEqual([400, 'role']);
  });

  it('are nobody’s own to take or to give', async () => {
    const ada = await newUser();
    expect((await ask(ada, 'PUT', `${ada.id}/role`, { role: 'admin' })).status).toBe(403);
    const own = await ask(admin, 'PUT', `${admin.id}/role`, { role: 'user' });
    expect([own.status, own.body.code]).toEqual([409, 'SELF_DEMOTION']);
  });
});

describe('bans', () => {
  it('end every session, tell the user why, keep them out at Better-Auth, and can be lifted', async () => {
    const ada = await newUser();
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const { body } = await ask(admin, 'POST', `${ada.id}/ban`, { reason: 'spam', expiresAt });
    expect(body).toMatchObject({ banned: true, banReason: 'spam', banExpires: expiresAt });

    expect((await ask(ada, 'GET', ada.id)).body).toMatchObject({
      code: 'USER_BANNED',
      banReason: 'spam',
    });
    expect(await stack.auth.get('/get-session', ada.session)).toBeNull();
    const refusal = await stack.auth.signIn(ada).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(BetterAuthError);
    expect(refusal).toMatchObject({ status: 403, code: 'BANNED_USER' });

    expect((await ask(admin, 'DELETE', `${ada.id}/ban`)).body.banned).toBe(false);
    expect((await ask(admin, 'DELETE', `${ada.id}/ban`)).status).toBe(200);
    await stack.auth.signIn(ada);
    expect((await events(ada.id)).map(({ action, reason }) => [action, reason])).toEqual([
      ['user.banned', 'spam'],
      ['user.unbanned', null],
    ]);
  });

  it('said again, update the reason and the end', async () => {
    const ada = await newUser();
    await ask(admin, 'POST', `${ada.id}/ban`, { reason: 'first' });
    const { status, body } = await ask(admin, 'POST', `${ada.id}/ban`, {});
    expect([status, body.banned, body.banReason, body.banExpires]).toEqual([200, true, null, null]);
  });

  it.each([
    [{ expiresAt: '2001-01-01T00:00:00Z' }, 'expiresAt'],
    [{ expiresAt: 'tomorrow' }, 'expiresAt'],
    [{ reason: 'a'.repeat(501) }, 'reason'],
    [{ reason: { $like: '%' } }, 'reason'],
    [{ until: 'x' }, 'until'],
  ])('refuse %j', async (body, field) => {
    const ada = await newUser();
    const answer = await ask(admin, 'POST', `${ada.id}/ban`, body);
    expect([answer.status, answer.body.errors[0].field]).toEqual([400, field]);
  });

  it('need no body', async () => {
    const ada = await newUser();
    const { status, body } = await ask(admin, 'POST', `${ada.id}/ban`);
    expect([status, body.banned, body.banReason, body.banExpires]).toEqual([200, true, null, null]);
  });

  it('are not for oneself', async () => {
    const answer = await ask(admin, 'POST', `${admin.id}/ban`, {});
    expect([answer.status, answer.body.code]).toEqual([409, 'SELF_BAN']);
  });
});

it('the record cannot be changed, not even by hand', async () => {
  await expect(stack.database.sql(`update gatehouse.audit_event set reason = 'x'`)).rejects.toThrow(
    /never changed/,
  );
  await expect(stack.database.sql('delete from gatehouse.audit_event')).rejects.toThrow(
    /never changed/,
  );
  await expect(stack.database.sql('truncate gatehouse.audit_event')).rejects.toThrow(
    /never changed/,
  );
});

it('the record cannot be changed where triggers are off, as for a replica', async () => {
  await stack.database.sql('set session_replication_role = replica');
  try {
    const change = stack.database.sql(`update gatehouse.audit_event set reason = 'x'`);
    await expect(change).rejects.toThrow(/never changed/);
  } finally {
    await stack.database.sql('reset session_replication_role');
  }
});
