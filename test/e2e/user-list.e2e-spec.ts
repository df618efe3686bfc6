import { encodeCursor } from '../../src/validation/cursor.js';
import { idsByCursor } from '../support/list-pages.js';
import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;

/** 60 users with known order, roles and bans. */
beforeAll(async () => {
  stack = await startStack();
  admin = await signUp(stack.authWithSid, 'Zed Admin');
  await stack.database.sql(
    `update "user" set role = 'admin', "createdAt" = '2026-01-01' where id = $1`,
    [admin.id],
  );
  await stack.database.sql(`
    insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role, banned, "banExpires")
    select 'u' || lpad(n::text, 3, '0'), 'TestUser ' || (n % 7), 'person' || n || '@example.org', n % 2 = 0,
      -- Three users share each time, so the id decides their order.
      timestamptz '2025-01-01' + (n / 3) * interval '1.000001 second', now(),
      case when n % 10 = 0 then 'support,user' when n % 10 = 1 then null else 'user' end,
      case when n % 4 = 1 and n % 5 <> 0 then null else n % 5 = 0 end, case when n % 10 = 5 then now() - interval '1 hour' end
    from generate_series(1, 60) n`);
  await stack.database.sql(
    `update "user" set name = '100% O''Brien_x', email = 'Straße@example.org' where id = 'u007'`,
  );
  await stack.database.sql('analyze');
});
afterAll(() => stack.end());

const list = (query = '', actor = admin) =>
  stack.gatehouse.call(`/api/v1/users${query}`, { token: actor.token });

const idsOf = (body: { items: { id: string }[] }) => body.items.map(({ id }) => id);

it('lists users only for admins', async () => {
  const ada = await signUp(stack.auth);
  expect((await list('', ada)).status).toBe(403);
  await stack.database.sql('delete from "user" where id = $1', [ada.id]);
});

it('lists the 20 newest users by default and counts all users', async () => {
  const { body } = await list();
  expect(body.items).toHaveLength(20);
  expect(body.items[0].id).toBe(admin.id);
  expect(body.pagination).toMatchObject({
    page: 1,
    limit: 20,
    total: 61,
    totalPages: 4,
    totalIsEstimate: false,
  });
});

describe.each(['createdAt', '-createdAt', 'email', '-email', 'name', '-name'])(
  'user list sorted by %s',
  (sort) => {
    it(`returns every user once by cursor, in the same order as by page (sort=${sort})`, async () => {
      const byPage: string[] = [];
      for (let page = 1; page <= 9; page += 1) {
        byPage.push(...idsOf((await list(`?sort=${sort}&limit=7&page=${page}`)).body));
      }
      const byCursor = await idsByCursor(
        (cursor) => list(`?sort=${sort}&limit=7&total=none${cursor}`),
        200,
      );
      expect(byCursor).toEqual(byPage);
      expect(new Set(byCursor).size).toBe(61);
    });

    it(`sorts users as PostgreSQL does, and by id if equal (sort=${sort})`, async () => {
      const column = sort.replace('-', '');
      const direction = sort.startsWith('-') ? 'desc' : 'asc';
      const rows = await stack.database.sql<{ id: string }>(
        `select id from "user" order by "${column}" ${direction}, id ${direction}`,
      );
      expect(idsOf((await list(`?sort=${sort}&limit=100`)).body)).toEqual(rows.map(({ id }) => id));
    });
  },
);

it.each([
  ['role=support', `string_to_array(role, ',') @> array['support']`],
  ['role=user', `role is null or string_to_array(role, ',') @> array['user']`],
  ['role=sup', 'false'],
  ['banned=true', 'banned and ("banExpires" is null or "banExpires" > now())'],
  [
    'banned=false',
    'not coalesce(banned and ("banExpires" is null or "banExpires" > now()), false)',
  ],
  ['emailVerified=true', '"emailVerified"'],
  ['createdFrom=2025-06-01T00:00:00Z', `"createdAt" >= '2025-06-01Z'`],
  ['createdTo=2025-01-01T00:00:05Z', `"createdAt" <= '2025-01-01T00:00:05Z'`],
  ['q=PERSON%203', `name ilike '%person 3%'`],
  ['q=%25', `id = 'u007'`],
  ['q=_', `id = 'u007'`],
  ['q=o%27brien', `id = 'u007'`],
  ['q=STRASSE', 'false'],
  ['q=nobody', 'false'],
  ['q=person&role=support&banned=true&emailVerified=true', `role = 'support,user'`],
])('lists and counts exactly the users that match %s', async (query, condition) => {
  const rows = await stack.database.sql<{ id: string }>(`select id from "user" where ${condition}`);
  const { status, body } = await list(`?limit=100&${query}`);
  expect(status).toBe(200);
  expect(idsOf(body).toSorted()).toEqual(rows.map(({ id }) => id).toSorted());
  expect(body.pagination.total).toBe(rows.length);
});

it('counts all users with total=exact and none with total=none', async () => {
  expect((await list('?total=exact')).body.pagination.total).toBe(61);
  expect((await list('?total=none')).body.pagination).toMatchObject({
    total: null,
    totalPages: null,
  });
});

it.each([
  ['page=0', 'page'],
  ['page=-1', 'page'],
  ['page=1.5', 'page'],
  ['page=x', 'page'],
  ['limit=0', 'limit'],
  ['limit=101', 'limit'],
  ['sort=password', 'sort'],
  ['sort=createdAt;drop', 'sort'],
  ['banned=yes', 'banned'],
  ['role=', 'role'],
  ['q=', 'q'],
  ['q=%00', 'q'],
  ['q=a&q=b', 'q'],
  ['createdFrom=yesterday', 'createdFrom'],
  ['createdFrom=2025-W10-1', 'createdFrom'],
  ['createdFrom=20250101', 'createdFrom'],
  ['createdTo=2025-02-30T00:00:00Z', 'createdTo'],
  ['createdFrom=2026-02-01T00:00:00Z&createdTo=2026-01-01T00:00:00Z', 'createdFrom'],
  ['total=all', 'total'],
  ['cursor=abc', 'cursor'],
  ['colour=red', 'colour'],
  ['$or=1', '$or'],
  ['__proto__=1', '__proto__'],
])('refuses the query %s and names the parameter', async (query, field) => {
  const { status, body } = await list(`?${query}`);
  expect([status, body.code]).toEqual([400, 'VALIDATION_ERROR']);
  expect(body.errors.map((error: { field: string }) => error.field)).toContain(field);
});

it('refuses a cursor that is changed, has another sort order or comes with a page', async () => {
  const { body } = await list('?limit=5');
  const { nextCursor } = body.pagination;
  const changed = `${nextCursor.slice(0, 4)}x${nextCursor.slice(5)}`;
  for (const query of [
    `cursor=${changed}`,
    `cursor=${nextCursor}x`,
    `sort=email&cursor=${nextCursor}`,
    `page=2&cursor=${nextCursor}`,
    `cursor=${encodeCursor({ sort: '-createdAt', value: 'yesterday', id: 'x' })}`,
    `cursor=${encodeCursor({ sort: '-createdAt', value: '2025-02-30 00:00:00+00', id: 'x' })}`,
    `sort=email&cursor=${encodeCursor({ sort: 'email', value: 'a\0', id: 'x' })}`,
  ]) {
    expect((await list(`?${query}`)).body.errors[0].field).toBe('cursor');
  }
});
