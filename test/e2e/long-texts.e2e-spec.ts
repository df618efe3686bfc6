import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { encodeCursor } from '../../src/validation/cursor.js';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { startApp } from '../support/test-app.js';
import { type TestUser, signUp } from '../support/users.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';
import { type Stack, startStack } from '../support/stack.js';

/** PostgreSQL compresses what repeats, also in an index: only noise is as long as it looks. */
const noise = (characters: number) =>
  randomBytes(characters).toString('base64url').slice(0, characters);

const roles = (last: string) => `${'member,'.repeat(100)}${last}`;

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

describe('a database with very long texts', () => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await createDatabase({ empty: true });
    await database.sql(KYSELY);
  });
  afterEach(() => database.drop());

  it('is migrated', async () => {
    await database.sql(
      `insert into "user" (id, name, email, "emailVerified", role) values ('ada', $1, $2, false, $3)`,
      [noise(100_000), `${noise(2600)}@example.com`, noise(10_000)],
    );
    expect(await runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url })).toMatchObject({
      code: 0,
      stderr: '',
    });
  });

  it('has the same indexes whether or not the first release has migrated it', async () => {
    const variables = { DATABASE_URL: database.url };
    await runBuilt('src/cli/migrate.js', variables);
    const indexes = await indexesOf(database);
    expect(indexes).toContain('gatehouse_user_name_prefix_idx');
    // As the first release left it.
    await database.sql(`
      drop index gatehouse_user_name_prefix_idx, gatehouse_user_email_prefix_idx, gatehouse_user_role_prefix_idx;
      create index gatehouse_user_name_idx on "user" (name, id);
      create index gatehouse_user_email_idx on "user" (email, id);
      create index gatehouse_user_role_idx on "user" (role, "createdAt", id);
      delete from gatehouse.migration where name > '20261127'`);
    expect(await runBuilt('src/cli/migrate.js', variables)).toMatchObject({ code: 0 });
    expect(await indexesOf(database)).toEqual(indexes);
  });
});

describe('with the indexes', () => {
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

  it('Better-Auth accepts a long name and a long e-mail address', async () => {
    const ada = await signUp(stack.auth, noise(100_000));
    expect(ada.token).toBeDefined();
    // The longest that its own unique index takes.
    await stack.database.sql('update "user" set email = $1, role = $2 where id = $3', [
      noise(2690),
      noise(10_000),
      ada.id,
    ]);
    await stack.database.sql('delete from "user" where id = $1', [ada.id]);
  });

  it.each(['name', '-name', 'email', '-email'])(
    'a walk by %s meets everybody once, also those whose texts begin alike',
    async (sort) => {
      const same = 'zebra'.repeat(100);
      await stack.database.sql(
        `insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
         select 'same' || n, $1 || 100 - n, $1 || n || '@example.org', false, now(), now()
         from generate_series(10, 40) n`,
        [same],
      );
      const seen: string[] = [];
      let cursor: string | null = null;
      do {
        const place: string = cursor === null ? '' : `&cursor=${cursor}`;
        const { items, pagination } = await list(`q=zebra&sort=${sort}&limit=7${place}`);
        seen.push(...items.map(({ id }) => id));
        cursor = pagination.nextCursor;
      } while (cursor && seen.length < 100);
      const ids = Array.from({ length: 31 }, (_, n) => `same${n + 10}`);
      expect(seen).toEqual(sort.startsWith('-') ? ids.toReversed() : ids);

      // A cursor of the first release holds the whole text.
      const old = encodeCursor({ sort, value: `${same}55`, id: 'same20' });
      const { items } = await list(`q=zebra&sort=${sort}&limit=1&cursor=${old}`);
      expect(items).toMatchObject([{ id: sort.startsWith('-') ? 'same19' : 'same21' }]);
      await stack.database.sql(`delete from "user" where id like 'same%'`);
    },
  );

  it('a role at the end of a very long list of roles is found', async () => {
    const ada = await signUp(stack.auth);
    const bob = await signUp(stack.auth);
    await stack.database.sql('update "user" set role = $1 where id = $2', [roles('x'), ada.id]);
    await stack.database.sql('update "user" set role = $1 where id = $2', [roles('y'), bob.id]);
    for (const sort of ['createdAt', 'name']) {
      expect((await list(`role=y&sort=${sort}`)).items).toMatchObject([{ id: bob.id }]);
    }
    expect((await list('role=member')).items).toHaveLength(2);
  });
});

it('the service of a snake_case database sorts by the beginning, too', async () => {
  const database = await createDatabase({ empty: true });
  const ddl = readFileSync(new URL('../schemas/drizzle-1.7.7-full.sql', import.meta.url), 'utf8');
  await database.sql(ddl);
  await database.sql(
    `insert into "user" (id, name, email, email_verified, created_at, updated_at)
     values ('long', $1, 'long@example.com', false, now(), now())`,
    [`zz${noise(100_000)}`],
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
