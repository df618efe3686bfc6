import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;
let mallory: TestUser;

const MEGABYTE = 1024 * 1024;

beforeAll(async () => {
  stack = await startStack({}, { CHANGE_FEED: 'off' });
  admin = await signUp(stack.authWithSid, 'Admin');
  mallory = await signUp(stack.authWithSid, 'Mallory');
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
  await stack.database.sql(
    `update "user" set image = repeat('p', $2), name = repeat('n', $2), "banReason" = repeat('b', $2),
      banned = true, "banExpires" = now() - interval '1 s' where id = $1`,
    [mallory.id, 90 * MEGABYTE],
  );
  await stack.database.sql(
    `update session set "userAgent" = repeat('u', $2), "ipAddress" = repeat('i', $2) where "userId" = $1`,
    [mallory.id, MEGABYTE],
  );
  await stack.database.sql(
    `update account set scope = repeat('s,', $2), "accountId" = repeat('a', $2) where "userId" = $1`,
    [mallory.id, MEGABYTE],
  );
}, 120_000);
afterAll(() => stack.end());

const callApi = async (path: string, actor: TestUser, options: object = {}) => {
  const { status, body } = await stack.gatehouse.call(`/api/v1${path}`, {
    token: actor.token,
    ...options,
  });
  return { status, body, characters: JSON.stringify(body).length };
};

it.each([
  ['/auth/me', () => '/auth/me', () => mallory],
  ['/auth/session', () => '/auth/session', () => mallory],
  ['/auth/accounts', () => '/auth/accounts', () => mallory],
  ['/users/{id}', () => `/users/${mallory.id}`, () => admin],
  ['/users/{id}/sessions', () => `/users/${mallory.id}/sessions`, () => admin],
  ['/users/{id}/accounts', () => `/users/${mallory.id}/accounts`, () => admin],
  ['/users', () => '/users', () => admin],
  ['/users?q=', () => '/users?q=nnn&total=exact', () => admin],
  ['/users?q= without a match', () => '/users?q=xyzzy', () => admin],
])(
  'reads only the beginning of a name, a picture and other long texts for GET %s',
  async (_, path, actor) => {
    const { status, characters } = await callApi(path(), actor());
    expect(status).toBe(200);
    expect(characters).toBeLessThan(8000);
  },
);

it('returns 255 characters of a name, 2,048 of a picture and 500 of a ban reason', async () => {
  const list = await callApi('/users?sort=-createdAt&limit=1', admin);
  for (const body of [
    (await callApi('/auth/me', mallory)).body,
    (await callApi(`/users/${mallory.id}`, admin)).body,
    list.body.items[0],
  ]) {
    expect(body.id).toBe(mallory.id);
    const lengths = [body.name, body.image, body.banReason].map((text: string) => text.length);
    expect(lengths).toEqual([255, 2048, 500]);
  }
});

it('keeps the stored text of a truncated field on a change, and records only its beginning', async () => {
  const eve = await signUp(stack.authWithSid);
  await stack.database.sql(
    `update "user" set image = repeat('p', $2), "banReason" = repeat('b', $2) where id = $1`,
    [eve.id, MEGABYTE],
  );
  const path = `/users/${eve.id}`;
  const body = { name: 'Eve' };
  expect((await callApi(path, eve, { method: 'PATCH', body })).status).toBe(200);
  expect(
    (await callApi(`${path}/role`, admin, { method: 'PUT', body: { role: 'user' } })).status,
  ).toBe(200);
  const stored = `select name, length(image) as image, length("banReason") as reason from "user" where id = $1`;
  expect(await stack.database.sql(stored, [eve.id])).toEqual([
    { name: 'Eve', image: MEGABYTE, reason: MEGABYTE },
  ]);

  expect((await callApi(path, eve, { method: 'PATCH', body: { image: null } })).status).toBe(200);
  expect(await stack.database.sql(stored, [eve.id])).toMatchObject([{ image: null }]);
  const [event] = await stack.database.sql<{ before: { image: string } }>(
    `select before from gatehouse.audit_event where target_user_id = $1 order by id desc limit 1`,
    [eve.id],
  );
  expect(event?.before.image).toBe('p'.repeat(2048));
});
