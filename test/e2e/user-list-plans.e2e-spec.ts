import { idsByCursor } from '../support/list-pages.js';
import { plansOf } from '../support/query-plans.js';
import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;

const USERS = 30_000;

/** With this many users, PostgreSQL uses indexes as it does in production. */
beforeAll(async () => {
  stack = await startStack();
  admin = await signUp(stack.authWithSid, 'Zed Admin');
  await stack.database.sql(`update "user" set role = 'admin,support' where id = $1`, [admin.id]);
  await stack.database.sql(`
    insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role, banned, "banExpires")
    select md5(n::text), 'TestUser ' || md5(n::text), 'person' || n || '@example.org', n % 100 <> 0,
      timestamptz '2025-01-01' + n * interval '1 minute', now(),
      case when n % 200 = 0 then 'admin' when n % 211 = 0 then 'support,admin' when n % 13 = 0 then null
        when n % 17 = 0 then '' else 'user' end,
      n % 150 = 0, case when n % 300 = 0 then now() - interval '1 hour' end
    from generate_series(1, ${USERS}) n`);
  await stack.database.sql('vacuum analyze "user"');
});
afterAll(() => stack.end());

const list = (query: string) =>
  stack.gatehouse.call(`/api/v1/users?${query}`, { token: admin.token });

/** Matches queries for the page, the total and stored roles, but not the lookup of the caller. */
const ABOUT_USERS = /^(select .* as place\b|select count|with (recursive|found))/s;

/** Returns the plans of all queries of the users' table for one request. */
const listPlans = (query: string) => plansOf(stack, ABOUT_USERS, () => list(query));

describe('query plans of the user list', () => {
  it.each([
    ['', ['created']],
    ['sort=email', ['email_prefix']],
    ['sort=-name', ['name_prefix']],
    ['role=admin', ['short_role', 'short_role', 'short_role']],
    ['banned=true', ['banned', 'banned']],
    ['emailVerified=false', ['unverified', 'unverified']],
    ['createdFrom=2025-01-20T00:00:00Z', ['created', 'created']],
  ])('reads a page from an index, without a scan or a full sort: ?%s', async (query, indexes) => {
    const plans = await listPlans(query);
    expect(plans).toHaveLength(indexes.length);
    for (const [position, index] of indexes.entries()) {
      expect(plans[position]).toContain(`gatehouse_user_${index}_idx`);
      expect(plans[position]).not.toContain('Seq Scan');
    }
    const page = plans.find((plan) => plan.includes('user_pkey'));
    expect(page).not.toContain('Bitmap');
    // Only lists of several roles are merged. All other pages come from the index in order.
    expect(page?.match(/Sort Key/g) ?? []).toHaveLength(query.startsWith('role') ? 1 : 0);
  });

  it('reads and counts the banned users of a role from their own index', async () => {
    const [, page, count] = await listPlans('role=user&banned=true');
    for (const plan of [page, count]) {
      expect(plan).toMatch(/Index Only Scan (Backward )?using gatehouse_user_banned_role_idx/);
      expect(plan).not.toContain('Seq Scan');
    }
  });

  it('counts the users of a role from the index alone', async () => {
    const plans = await listPlans('role=admin');
    const count = plans.find((plan) => plan.startsWith('Aggregate'));
    expect(count).toContain('Index Only Scan using gatehouse_user_short_role_idx');
    expect(plans[0]).toContain('gatehouse_user_long_role_idx');
  });

  it('reads the search index once for a search with few results', async () => {
    const plans = await listPlans('q=person12345');
    expect(plans).toHaveLength(1);
    expect(plans[0]?.match(/Index Scan on gatehouse_user_search_idx/g)).toHaveLength(1);
    expect(plans[0]).not.toContain('Seq Scan');
  });

  it('reads the list order until the page is full for a search with many results', async () => {
    const [plan] = await listPlans('q=example');
    expect(plan).toContain('gatehouse_user_created_idx');
  });
});

describe('total of the user list', () => {
  it('estimates a total above 10,000 users unless the request wants an exact one', async () => {
    for (const query of ['', 'q=example', 'emailVerified=true']) {
      const { pagination } = (await list(query)).body;
      expect(pagination.totalIsEstimate).toBe(true);
      expect(pagination.total).toBeGreaterThan(0.9 * USERS);
      expect(pagination.total).toBeLessThan(1.1 * USERS);
    }
    expect((await list('total=exact')).body.pagination).toMatchObject({
      total: USERS + 1,
      totalIsEstimate: false,
    });
  });

  it('counts a small total exactly, also on the last page and behind it', async () => {
    const [row] = await stack.database.sql<{ few: number }>(
      `select count(*)::int as few from "user" where not "emailVerified"`,
    );
    const few = row?.few ?? 0;
    const pages = Math.ceil(few / 20);
    for (const page of [1, pages, pages + 1]) {
      const { pagination } = (await list(`emailVerified=false&page=${page}`)).body;
      expect(pagination).toMatchObject({ total: few, totalPages: pages, totalIsEstimate: false });
    }
  });

  it('never estimates a total below the number of users up to the page', async () => {
    const page = USERS / 100;
    const { body } = await list(`q=person&role=user&limit=100&page=${page - 50}`);
    expect(body.items).toHaveLength(100);
    expect(body.pagination.total).toBeGreaterThan((page - 50) * 100);
  });
});

describe('search of the user list', () => {
  it.each(['-createdAt', 'createdAt', 'email', '-name'])(
    'returns every match once with the exact total on each page, in order of %s',
    async (sort) => {
      const column = sort.replace('-', '');
      const direction = sort.startsWith('-') ? 'desc' : 'asc';
      const rows = await stack.database.sql<{ id: string }>(
        `select id from "user" where email ilike '%person12%' or name ilike '%person12%'
         order by "${column}" ${direction}, id ${direction}`,
      );
      const listed = await idsByCursor(async (cursor) => {
        const page = await list(`q=PERSON12&sort=${sort}&limit=100${cursor}`);
        expect(page.body.pagination).toMatchObject({
          total: rows.length,
          totalIsEstimate: false,
        });
        return page;
      }, 2 * rows.length);
      expect(listed).toEqual(rows.map(({ id }) => id));
      const behind = await list(`q=PERSON12&sort=${sort}&limit=100&page=1000`);
      expect(behind.body).toMatchObject({ items: [], pagination: { total: rows.length } });
    },
  );

  it('finds no text that begins in the e-mail address and ends in the name', async () => {
    const found = async (q: string) =>
      (await list(`q=${encodeURIComponent(q)}`)).body.pagination.total as number;
    expect(await found('@example.org')).toBeGreaterThan(10_000);
    for (const between of ['', ' ', '\n']) expect(await found(`.org${between}TestUser`)).toBe(0);
    await stack.database.sql(`update "user" set name = E'Two\nLines' where id = $1`, [admin.id]);
    expect(await found('o\nL')).toBe(1);
  });

  it('estimates the total if more users match than PostgreSQL expects', async () => {
    await stack.database.sql(`delete from pg_statistic where starelid in (
      '"user"'::regclass, 'gatehouse_user_search_idx'::regclass)`);
    const { items, pagination } = (await list('q=example')).body;
    await stack.database.sql('analyze "user"');
    expect(items).toHaveLength(20);
    expect(pagination).toMatchObject({ total: 20_001, totalIsEstimate: true });
  });
});

describe('role filter of the user list', () => {
  const ADMINS = `string_to_array(role, ',') @> array['admin']`;
  const USERS_ROLE = `coalesce(role, '') in ('', 'user')`;

  it.each([
    ['admin', '-createdAt', ADMINS],
    ['admin', 'createdAt', ADMINS],
    ['admin', 'email', ADMINS],
    ['user', '-createdAt', USERS_ROLE],
    ['user', '-name', USERS_ROLE],
  ])('returns every user with role %s once, in order of %s', async (role, sort, condition) => {
    const column = sort.replace('-', '');
    const direction = sort.startsWith('-') ? 'desc' : 'asc';
    const rows = await stack.database.sql<{ id: string }>(
      `select id from "user" where ${condition}
       order by "${column}" ${direction}, id ${direction} limit 250`,
    );
    const listed = await idsByCursor(
      (cursor) => list(`role=${role}&sort=${sort}&limit=50&total=none${cursor}`),
      250,
    );
    expect(listed.slice(0, 250)).toEqual(rows.map(({ id }) => id));
    const page = await list(`role=${role}&sort=${sort}&limit=50&page=3`);
    expect(page.body.items.map(({ id }: { id: string }) => id)).toEqual(
      rows.slice(100, 150).map(({ id }) => id),
    );
  });

  it('finds users by role among thousands of different role values', async () => {
    await stack.database.sql(
      `update "user" set role = 'team-' || email || ',member' where "createdAt" < '2025-01-02'`,
    );
    expect((await list('role=member&limit=100')).body.pagination.total).toBe(1439);
    expect((await list('role=support')).body.pagination.total).toBeGreaterThan(100);
    expect((await list('role=team-person7@example.org')).body.items).toHaveLength(1);
    expect((await list('role=team')).body.items).toEqual([]);
  });
});
