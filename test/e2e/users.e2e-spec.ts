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

const request = (actor: TestUser, method: string, path: string, body?: unknown, headers = {}) =>
  stack.gatehouse.call(`/api/v1/users/${path}`, {
    method,
    token: actor.token,
    headers,
    ...(body === undefined ? {} : { body }),
  });

const events = (targetId: string) =>
  stack.database.sql('select * from gatehouse.audit_event where target_user_id = $1 order by id', [
    targetId,
  ]);

describe('details of a user', () => {
  it('lets only the user and admins read a user, and returns only documented fields', async () => {
    const [ada, eve] = [await newUser(), await newUser()];
    for (const actor of [ada, admin]) {
      const { status, headers, body } = await request(actor, 'GET', ada.id);
      expect([status, body.email, headers.get('etag')]).toEqual([
        200,
        ada.email,
        expect.stringMatching(/^"[\w-]{27}"$/),
      ]);
    }
    expect((await request(eve, 'GET', ada.id)).status).toBe(403);
    expect((await request(eve, 'GET', 'nobody')).status).toBe(403);
    expect((await request(admin, 'GET', 'nobody')).body.code).toBe('USER_NOT_FOUND');
  });
});

it('responds with 304 when the client has the current version of a user', async () => {
  const ada = await newUser();
  const currentTag = (await request(ada, 'GET', ada.id)).headers.get('etag') ?? '';
  const read = async (tag: string) => {
    const { status, text, headers } = await stack.gatehouse.http
      .get(`/api/v1/users/${ada.id}`)
      .set('Authorization', `Bearer ${ada.token}`)
      .set('If-None-Match', tag);
    return [status, text, headers['etag']] as unknown;
  };
  expect(await read(currentTag)).toEqual([304, '', currentTag]);
  expect(await read('"another"')).toEqual([200, expect.stringContaining(ada.id), currentTag]);
});

it('treats a ban that expires at infinity as permanent, and can lift it', async () => {
  const eve = await newUser();
  await stack.database.sql(
    `update "user" set banned = true, "banExpires" = 'infinity' where id = $1`,
    [eve.id],
  );
  const read = await request(admin, 'GET', eve.id);
  expect([read.status, read.body.banned, read.body.banExpires]).toEqual([200, true, null]);
  const renamed = await request(admin, 'PATCH', eve.id, { name: 'Eve' });
  expect([renamed.status, renamed.body.name, renamed.body.banned]).toEqual([200, 'Eve', true]);
  const lifted = await request(admin, 'DELETE', `${eve.id}/ban`);
  expect([lifted.status, lifted.body.banned]).toEqual([200, false]);
});

describe('change of name and picture', () => {
  it('trims a changed name, sets updatedAt, records the change and shows it in Better-Auth', async () => {
    const ada = await newUser();
    const { status, body } = await request(ada, 'PATCH', ada.id, {
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
    expect((await request(ada, 'PATCH', ada.id, { image: null })).body.image).toBeNull();
  });

  it('writes and records nothing when an update changes nothing', async () => {
    const ada = await newUser();
    const before = (await request(ada, 'GET', ada.id)).body;
    expect((await request(ada, 'PATCH', ada.id, { name: 'Ada Lovelace' })).body).toEqual(before);
    expect((await request(ada, 'PATCH', ada.id, {})).body).toEqual(before);
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
  ])('refuses the update %j, names the field and records nothing', async (body, field) => {
    const ada = await newUser();
    const response = await request(ada, 'PATCH', ada.id, body);
    expect([response.status, response.body.code]).toEqual([400, 'VALIDATION_ERROR']);
    expect(response.body.errors.map((error: { field: string }) => error.field)).toContain(field);
    expect(await events(ada.id)).toEqual([]);
  });

  it.each([
    ['an array at the top', '[{"name":"x"}]'],
    ['3,000 levels of nesting', `{"image":${'['.repeat(3000)}${']'.repeat(3000)}}`],
    ['a lone surrogate', '{"name":"\\ud800"}'],
  ])('refuses a body with %s', async (_what, body) => {
    const ada = await newUser();
    const { status } = await fetch(`${stack.gatehouse.url}/api/v1/users/${ada.id}`, {
      method: 'PATCH',
      headers: { authorization: `Bearer ${ada.token}`, 'content-type': 'application/json' },
      body,
    });
    expect(status).toBe(400);
  });

  it('refuses a body with __proto__ and keeps the role', async () => {
    const ada = await newUser();
    const response = await fetch(`${stack.gatehouse.url}/api/v1/users/${ada.id}`, {
      method: 'PATCH',
      headers: { authorization: `Bearer ${ada.token}`, 'content-type': 'application/json' },
      body: '{"__proto__":{"role":"admin"}}',
    });
    expect(response.status).toBe(400);
    expect((await request(ada, 'GET', ada.id)).body.role).toBe('user');
  });
});

describe('conditional update', () => {
  it.each([
    ['*', 200],
    ['"something-else"', 412],
    ['W/"x"', 412],
    ['"a,b", "c"', 412],
    ['unquoted', 400],
    ['"half', 400],
    [',', 400],
  ])('responds to an update with If-Match %s with status %d', async (ifMatch, status) => {
    const ada = await newUser();
    const response = await request(ada, 'PATCH', ada.id, { name: 'New' }, { 'if-match': ifMatch });
    expect(response.status).toBe(status);
  });
});

describe('roles of a user', () => {
  it('lets an admin assign several roles, which Better-Auth shows', async () => {
    const ada = await newUser();
    const { status, body } = await request(admin, 'PUT', `${ada.id}/role`, {
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
  ])('refuses the role update %j', async (body) => {
    const ada = await newUser();
    const response = await request(admin, 'PUT', `${ada.id}/role`, body);
    expect([response.status, response.body.errors[0].field]).toEqual([400, 'role']);
  });

  it('refuses users who promote themselves and admins who demote themselves', async () => {
    const ada = await newUser();
    expect((await request(ada, 'PUT', `${ada.id}/role`, { role: 'admin' })).status).toBe(403);
    const own = await request(admin, 'PUT', `${admin.id}/role`, { role: 'user' });
    expect([own.status, own.body.code]).toEqual([409, 'SELF_DEMOTION']);
  });
});

describe('ban of a user', () => {
  it('ends every session of a banned user, states the reason, blocks the sign-in and can be lifted', async () => {
    const ada = await newUser();
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const { body } = await request(admin, 'POST', `${ada.id}/ban`, { reason: 'spam', expiresAt });
    expect(body).toMatchObject({ banned: true, banReason: 'spam', banExpires: expiresAt });

    expect((await request(ada, 'GET', ada.id)).body).toMatchObject({
      code: 'USER_BANNED',
      banReason: 'spam',
    });
    expect(await stack.auth.get('/get-session', ada.session)).toBeNull();
    const refusal = await stack.auth.signIn(ada).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(BetterAuthError);
    expect(refusal).toMatchObject({ status: 403, code: 'BANNED_USER' });

    expect((await request(admin, 'DELETE', `${ada.id}/ban`)).body.banned).toBe(false);
    expect((await request(admin, 'DELETE', `${ada.id}/ban`)).status).toBe(200);
    await stack.auth.signIn(ada);
    expect((await events(ada.id)).map(({ action, reason }) => [action, reason])).toEqual([
      ['user.banned', 'spam'],
      ['user.unbanned', null],
    ]);
  });

  it('updates the reason and the end of an existing ban', async () => {
    const ada = await newUser();
    await request(admin, 'POST', `${ada.id}/ban`, { reason: 'first' });
    const { status, body } = await request(admin, 'POST', `${ada.id}/ban`, {});
    expect([status, body.banned, body.banReason, body.banExpires]).toEqual([200, true, null, null]);
  });

  it.each([
    [{ expiresAt: '2001-01-01T00:00:00Z' }, 'expiresAt'],
    [{ expiresAt: 'tomorrow' }, 'expiresAt'],
    [{ reason: 'a'.repeat(501) }, 'reason'],
    [{ reason: { $like: '%' } }, 'reason'],
    [{ until: 'x' }, 'until'],
  ])('refuses the ban %j', async (body, field) => {
    const ada = await newUser();
    const response = await request(admin, 'POST', `${ada.id}/ban`, body);
    expect([response.status, response.body.errors[0].field]).toEqual([400, field]);
  });

  it('bans a user without a request body', async () => {
    const ada = await newUser();
    const { status, body } = await request(admin, 'POST', `${ada.id}/ban`);
    expect([status, body.banned, body.banReason, body.banExpires]).toEqual([200, true, null, null]);
  });

  it('refuses admins who ban themselves', async () => {
    const response = await request(admin, 'POST', `${admin.id}/ban`, {});
    expect([response.status, response.body.code]).toEqual([409, 'SELF_BAN']);
  });
});

it('refuses every change of the audit log by SQL', async () => {
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

it('refuses a change of the audit log even with the triggers of a replica', async () => {
  await stack.database.sql('set session_replication_role = replica');
  try {
    const change = stack.database.sql(`update gatehouse.audit_event set reason = 'x'`);
    await expect(change).rejects.toThrow(/never changed/);
  } finally {
    await stack.database.sql('reset session_replication_role');
  }
});
