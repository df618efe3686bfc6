import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { encodeCursor } from '../../src/validation/cursor.js';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { startApp } from '../support/test-app.js';
import { idsByCursor } from '../support/list-pages.js';
import { type TestUser, signUp } from '../support/users.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';
import { type Stack, startStack } from '../support/stack.js';

/** PostgreSQL compresses repetitive text, also in an index. Random text keeps its length. */
const randomText = (characters: number) =>
  randomBytes(characters).toString('base64url').slice(0, characters);

const longRoleList = (last: string) => `${'member,'.repeat(100)}${last}`;

const KYSELY = readFileSync(
  new URL('../schemas/kysely-1.7.24-admin-jwt-bearer.sql', import.meta.url),
  'utf8',
);

const indexesOf = async (database: TestDatabase) =>
  (
    await database.sql<{ name: string }>(
      `select indexname as name from pg_indexes where indexname like 'gatehouse%' order by 1`,
    )
  ).map(({ name }) => name);

describe('migration of very long texts', () => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await createDatabase({ empty: true });
    await database.sql(KYSELY);
  });
  afterEach(() => database.drop());

  it('migrates a database with very long texts', async () => {
    await database.sql(
      `insert into "user" (id, name, email, "emailVerified", role) values ('ada', $1, $2, false, $3)`,
      [randomText(100_000), `${randomText(2600)}@example.com`, randomText(10_000)],
    );
    expect(await runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url })).toMatchObject({
      code: 0,
      stderr: '',
    });
  });

  it('creates the same indexes whether or not the first release has migrated the database', async () => {
    const variables = { DATABASE_URL: database.url };
    await runBuilt('src/cli/migrate.js', variables);
    const indexes = await indexesOf(database);
    expect(indexes).toContain('gatehouse_user_name_prefix_idx');
    // Restore the indexes of the first release.
    await database.sql(`
      drop index gatehouse_user_name_prefix_idx, gatehouse_user_email_prefix_idx, gatehouse_user_short_role_idx, gatehouse_user_long_role_idx,
        gatehouse_user_search_idx, gatehouse_user_banned_role_idx;
      create index gatehouse_user_email_search_idx on "user" using gin (email gin_trgm_ops);
      create index gatehouse_user_name_search_idx on "user" using gin (name gin_trgm_ops);
      create index gatehouse_user_name_idx on "user" (name, id);
      create index gatehouse_user_email_idx on "user" (email, id);
      create index gatehouse_user_role_idx on "user" (role, "createdAt", id);
      delete from gatehouse.migration where name like any (array['%-bounded-indexes', '%-large-list-indexes'])`);
    expect(await runBuilt('src/cli/migrate.js', variables)).toMatchObject({ code: 0 });
    expect(await indexesOf(database)).toEqual(indexes);
  });
});

describe('user list with very long texts', () => {
  let stack: Stack;
  let admin: TestUser;
  beforeAll(async () => {
    stack = await startStack();
    admin = await signUp(stack.auth, 'Admin');
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
  });
  afterAll(() => stack.end());

  const list = async (query: string) => {
    const { status, body } = await stack.gatehouse.call(`/api/v1/users?${query}`, {
      token: admin.token,
    });
    expect(status).toBe(200);
    return body as { items: { id: string }[]; pagination: { nextCursor: string | null } };
  };

  it('lets Better-Auth store a long name and a long e-mail address', async () => {
    const name = randomText(100_000);
    const ada = await signUp(stack.auth, name);
    expect(await stack.database.sql('select id from "user" where name = $1', [name])).toEqual([
      { id: ada.id },
    ]);
    // The longest e-mail address that Better-Auth's own unique index accepts.
    await stack.database.sql('update "user" set email = $1, role = $2 where id = $3', [
      randomText(2690),
      randomText(10_000),
      ada.id,
    ]);
    await stack.database.sql('delete from "user" where id = $1', [ada.id]);
  });

  it.each(['name', '-name', 'email', '-email'])(
    'lists each user once when sorted by %s, also when their texts begin alike',
    async (sort) => {
      const prefix = 'zebra'.repeat(100);
      await stack.database.sql(
        `insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
         select 'same' || n, $1 || 100 - n, $1 || n || '@example.org', false, now(), now()
         from generate_series(10, 40) n`,
        [prefix],
      );
      const listedIds = await idsByCursor(
        async (cursor) => ({ body: await list(`q=zebra&sort=${sort}&limit=7${cursor}`) }),
        100,
      );
      const ids = Array.from({ length: 31 }, (_, n) => `same${n + 10}`);
      expect(listedIds).toEqual(sort.startsWith('-') ? ids.toReversed() : ids);

      // A cursor of the first release holds the whole text.
      const old = encodeCursor({ sort, value: `${prefix}55`, id: 'same20' });
      const { items } = await list(`q=zebra&sort=${sort}&limit=1&cursor=${old}`);
      expect(items).toMatchObject([{ id: sort.startsWith('-') ? 'same19' : 'same21' }]);
      await stack.database.sql(`delete from "user" where id like 'same%'`);
    },
  );

  it('finds a role at the end of a very long list of roles', async () => {
    const ada = await signUp(stack.auth);
    const bob = await signUp(stack.auth);
    await stack.database.sql('update "user" set role = $1 where id = $2', [
      longRoleList('x'),
      ada.id,
    ]);
    await stack.database.sql('update "user" set role = $1 where id = $2', [
      longRoleList('y'),
      bob.id,
    ]);
    for (const sort of ['createdAt', 'name']) {
      expect((await list(`role=y&sort=${sort}`)).items).toMatchObject([{ id: bob.id }]);
    }
    expect((await list('role=member')).items).toHaveLength(2);
  });
});

it('sorts the users of a snake_case database by the beginning of long texts', async () => {
  const database = await createDatabase({ empty: true });
  const ddl = readFileSync(new URL('../schemas/drizzle-1.7.7-full.sql', import.meta.url), 'utf8');
  await database.sql(ddl);
  await database.sql(
    `insert into "user" (id, name, email, email_verified, created_at, updated_at)
     values ('long', $1, 'long@example.com', false, now(), now())`,
    [`zz${randomText(100_000)}`],
  );
  await runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url });
  const auth = await startBetterAuth({ databaseUrl: database.url, columns: 'snake' });
  const gatehouse = await startApp({ DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin });
  try {
    const ada = await signUp(auth, 'Ada');
    await database.sql(`update "user" set role = 'admin' where id = $1`, [ada.id]);
    const { status, body } = await gatehouse.call('/api/v1/users?sort=-name', ada);
    expect(status).toBe(200);
    expect(body.items.map(({ id }: { id: string }) => id)).toEqual(['long', ada.id]);
  } finally {
    await gatehouse.close();
    await auth.stop();
    await database.drop();
  }
});
