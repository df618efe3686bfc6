import { createServer, type Server } from 'node:net';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { readCatalog } from '../support/pg-catalog.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';

const KYSELY = readFileSync(
  new URL('../schemas/kysely-1.7.24-admin-jwt-bearer.sql', import.meta.url),
  'utf8',
);
const PASSWORD = 'correct-horse-battery';

const migrate = (variables: Record<string, string>) => runBuilt('src/cli/migrate.js', variables);
const doctor = (variables: Record<string, string>) => runBuilt('src/cli/doctor.js', variables);
const service = (variables: Record<string, string>) =>
  runBuilt('src/main.js', { PORT: '0', SHUTDOWN_DELAY_MS: '0', ...variables });

let database: TestDatabase;

/** Returns a function that returns the URL of the test database after a change. */
const urlWith = (change: (url: URL) => void) => () => {
  const url = new URL(database.url);
  change(url);
  return url.href;
};

beforeEach(async () => {
  database = await createDatabase({ empty: true });
});

afterEach(() => database.drop());

describe('unusable databases', () => {
  it.each<{ with: string; sql: string; sentence: string; settings?: Record<string, string> }>([
    {
      with: "half of Better-Auth's tables",
      sql: 'drop table session; drop table account',
      sentence:
        'Schema "public" has only some of Better-Auth\'s tables: user, verification, but not session, account. Finish Better-Auth\'s own migration first.',
    },
    {
      with: 'no session table, as with secondaryStorage',
      sql: 'drop table session; drop table verification',
      sentence:
        'Schema "public" has only some of Better-Auth\'s tables: user, account, but not session. Finish Better-Auth\'s own migration first. If it has secondaryStorage, set session.storeSessionInDatabase there, or SESSION_BINDING=token-only here (docs/better-auth.md).',
    },
    {
      with: 'a missing column',
      sql: 'alter table "user" drop column "emailVerified"',
      sentence:
        "user: column emailVerified or email_verified is missing. Finish Better-Auth's own migration first.",
    },
    {
      with: 'a column of another type',
      sql: 'alter table session alter "expiresAt" type bigint using 0',
      sentence: 'session: column expiresAt is of type bigint, which Better-Auth never creates.',
    },
    {
      with: 'no admin plugin',
      sql: `alter table "user" drop role, drop banned, drop "banReason", drop "banExpires";
        alter table session drop "impersonatedBy"`,
      sentence:
        "Columns of Better-Auth's admin plugin are missing: user.role, user.banned, user.banReason, user.banExpires, session.impersonatedBy. Add the plugin to Better-Auth and run its migration.",
    },
    {
      with: 'columns of the style that DATABASE_COLUMNS excludes',
      sql: `alter table account rename "userId" to user_id`,
      settings: { DATABASE_COLUMNS: 'camel' },
      sentence: "account: column userId is missing. Finish Better-Auth's own migration first.",
    },
    {
      with: 'tables in a schema that is not configured',
      sql: 'alter schema public rename to auth; create schema public',
      sentence: 'Schema "public" has no Better-Auth tables, but "auth" does. Set DATABASE_SCHEMA.',
    },
  ])('refuses a database with $with in one sentence', async ({ sql, sentence, settings = {} }) => {
    await database.sql(KYSELY);
    await database.sql(sql);
    const before = await readCatalog(database, { ours: true });
    const variables = { DATABASE_URL: database.url, ...settings };

    const [migration, start, diagnosis] = await Promise.all([
      migrate(variables),
      service(variables),
      doctor(variables),
    ]);
    expect(migration).toEqual({ code: 1, stdout: '', stderr: `${sentence}\n` });
    expect(start).toEqual({ code: 1, stdout: '', stderr: `${sentence}\n` });
    expect(diagnosis).toMatchObject({ code: 1, stderr: '' });
    expect(linesWith('FAULT', diagnosis.stdout)).toEqual([`FAULT   ${sentence}`]);
    expect(diagnosis.stdout).toContain('Gatehouse cannot run on this database yet.');
    expect(await readCatalog(database, { ours: true })).toEqual(before);
  });

  it('refuses an empty database in the service and the doctor until it is migrated', async () => {
    const variables = { DATABASE_URL: database.url };
    const sentence =
      'Schema "public" has no Better-Auth tables. Run the migrations (npm run migrate), or set DATABASE_SCHEMA.';
    expect(await service(variables)).toEqual({ code: 1, stdout: '', stderr: `${sentence}\n` });
    const diagnosis = await doctor(variables);
    expect(diagnosis).toMatchObject({ code: 1, stderr: '' });
    expect(linesWith('FAULT', diagnosis.stdout)).toEqual([`FAULT   ${sentence}`]);
  });

  it('reports pending migrations in the doctor', async () => {
    await database.sql(KYSELY);
    const { code, stdout } = await doctor({ DATABASE_URL: database.url });
    expect(code).toBe(1);
    expect(linesWith('FAULT', stdout)).toEqual([
      expect.stringMatching(/^FAULT   (\d+) of \1 migrations are pending. Run: npm run migrate$/),
    ]);
  });
});

describe('search_path', () => {
  it.each([
    ['that names the schema of the tables', 'app'],
    ["that begins with Gatehouse's own schema, as for a role named gatehouse", 'gatehouse,app'],
  ])('migrates the tables through a search_path %s', async (_what, path) => {
    await database.sql(KYSELY);
    await database.sql('alter schema public rename to app; create schema public');
    const url = new URL(database.url);
    url.searchParams.set('options', `-c search_path=${path}`);
    const variables = { DATABASE_URL: url.href };

    expect(await migrate(variables)).toMatchObject({ code: 0, stderr: '' });
    expect(await doctor(variables)).toMatchObject({ code: 0, stderr: '' });
    expect(await migrate(variables)).toMatchObject({ code: 0, stdout: 'nothing to apply\n' });
    const [counted] = await database.sql(`select
      (select count(*)::int from pg_tables where schemaname = 'public') as made,
      (select count(*)::int from pg_indexes where schemaname = 'app' and indexname like 'gatehouse%') as indexed`);
    expect(counted).toMatchObject({ made: 0, indexed: expect.any(Number) });
    expect(counted?.['indexed']).toBeGreaterThan(0);
  });
});

describe('databases with unknown tables and columns', () => {
  it('accepts a newer column that may be empty without a warning', async () => {
    await database.sql(KYSELY);
    await database.sql('alter table "user" add "phoneNumber" text');
    expect(await migrate({ DATABASE_URL: database.url })).toMatchObject({ code: 0, stderr: '' });
    const { code, stdout } = await doctor({ DATABASE_URL: database.url });
    expect({ code, warnings: linesWith('warning', stdout) }).toEqual({ code: 0, warnings: [] });
  });

  it('reports users with an oversized name or picture in a warning', async () => {
    await database.sql(KYSELY);
    const variables = { DATABASE_URL: database.url };
    expect((await migrate(variables)).code).toBe(0);
    await database.sql(
      `insert into "user" (id, name, email, "emailVerified", image) values
         ('a', 'Ada', 'ada@example.com', true, repeat('p', 3000)),
         ('b', 'Bob', 'bob@example.com', true, repeat('p', 90000000)),
         ('c', 'Cid', 'cid@example.com', true, null)`,
    );
    const { code, stdout } = await doctor(variables);
    expect({ code, warnings: linesWith('warning', stdout) }).toEqual({
      code: 0,
      warnings: [
        expect.stringMatching(
          /^warning The name and the picture of 1 users have more than 4096 bytes \(the largest: 90000003\)\./,
        ),
      ],
    });
  });

  it('reports a required column that Better-Auth may not fill in a warning', async () => {
    await database.sql(KYSELY);
    await database.sql('alter table "user" add tenant text not null');
    expect(await migrate({ DATABASE_URL: database.url })).toMatchObject({ code: 0, stderr: '' });
    const { code, stdout } = await doctor({ DATABASE_URL: database.url });
    expect(code).toBe(0);
    expect(linesWith('warning', stdout)).toEqual([
      expect.stringMatching(/^warning user\.tenant is required and has no default\. .*refuse/),
    ]);
  });

  it("uses Better-Auth's table `user` and not a table `users` of the application", async () => {
    await database.sql(KYSELY);
    await database.sql('create table users (id serial primary key, email text, name text)');
    expect(await migrate({ DATABASE_URL: database.url })).toMatchObject({ code: 0, stderr: '' });
    const { code, stdout } = await doctor({ DATABASE_URL: database.url });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^user\.email +user\.email +text$/m);
  });

  it('accepts a database without a session table with SESSION_BINDING=token-only', async () => {
    await database.sql(KYSELY);
    await database.sql('drop table session; drop table verification');
    const variables = { DATABASE_URL: database.url, SESSION_BINDING: 'token-only' };
    expect(await migrate(variables)).toMatchObject({ code: 0, stderr: '' });
    const { code, stdout } = await doctor(variables);
    expect(code).toBe(0);
    expect(linesWith('warning', stdout)).toEqual([
      expect.stringContaining('SESSION_BINDING=token-only'),
      expect.stringMatching(/no table "session".*do not reach it/),
      expect.stringContaining('no table "verification"'),
    ]);
  });
});

describe('unreachable databases', () => {
  let pooler: Server | undefined;

  afterEach(() => pooler?.close());

  it.each<{ cause: string; url: () => string | Promise<string>; sentence: RegExp }>([
    {
      cause: 'a wrong password',
      url: urlWith((url) => (url.password = PASSWORD)),
      sentence:
        /^PostgreSQL at 127\.0\.0\.1:\d+ rejects user "postgres" \(wrong user, password or pg_hba\.conf\)\.$/,
    },
    {
      cause: 'a missing database',
      url: urlWith((url) => (url.pathname = '/no%20such')),
      sentence: /^PostgreSQL at 127\.0\.0\.1:\d+ has no database "no such"\.$/,
    },
    {
      cause: 'a closed port',
      url: urlWith((url) => (url.port = '1')),
      sentence: /^PostgreSQL is not reachable at 127\.0\.0\.1:1 \(connection refused\)\.$/,
    },
    {
      cause: 'an unknown host',
      url: urlWith((url) => (url.hostname = 'database.invalid')),
      sentence: /^The database host database\.invalid cannot be resolved \(DNS\)\.$/,
    },
    {
      cause: 'a pooler that refuses connections',
      url: () =>
        startPooler('unsupported startup parameter in options: search_path', (server) => {
          pooler = server;
        }),
      sentence:
        /^PostgreSQL at 127\.0\.0\.1:\d+ cannot be used: unsupported startup parameter in options: search_path\.$/,
    },
    {
      cause: 'a server that never responds',
      url: () =>
        startPooler(null, (server) => {
          pooler = server;
        }),
      sentence: /^PostgreSQL at 127\.0\.0\.1:\d+ did not respond in time\.$/,
    },
  ])('reports $cause in one sentence in every program', async ({ url, sentence }) => {
    const before = await readCatalog(database, { ours: true });
    const href = new URL(await url());
    if (href.password === '') href.password = PASSWORD;
    const variables = { DATABASE_URL: href.href };
    const outcomes = await Promise.all([migrate(variables), doctor(variables), service(variables)]);
    for (const { code, stdout, stderr } of outcomes) {
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr.trimEnd()).toMatch(sentence);
      expect(stderr).not.toContain(decodeURIComponent(href.password));
    }
    expect(await readCatalog(database, { ours: true })).toEqual(before);
  });
});

describe('insufficient database privileges', () => {
  let role: string;
  let url: string;

  beforeEach(async () => {
    const address = new URL(database.url);
    role = `limited_${address.pathname.slice(1)}`;
    await database.sql(`create role ${role} login password '${PASSWORD}'`);
    address.username = role;
    address.password = PASSWORD;
    url = address.href;
  });

  afterEach(async () => {
    await database.sql(`drop owned by ${role}; drop role ${role}`);
  });

  async function expectRefusal(sentence: RegExp): Promise<void> {
    const before = await readCatalog(database, { ours: true });
    const { code, stdout, stderr } = await migrate({ DATABASE_URL: url });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr.trimEnd()).toMatch(sentence);
    expect(await readCatalog(database, { ours: true })).toEqual(before);
  }

  it('reports that the user may not create schemas', async () => {
    await database.sql(KYSELY);
    await expectRefusal(
      /^PostgreSQL returned an error: permission denied for database \w+ \(42501\)\. Grant the permission, or name a user that has it in DATABASE_DIRECT_URL\.$/,
    );
  });

  it('reports that the user may not create tables, and leaves no schema behind', async () => {
    const name = new URL(url).pathname.slice(1);
    await database.sql(`grant create on database ${name} to ${role}`);
    await expectRefusal(
      /^PostgreSQL returned an error: permission denied for schema public \(42501\)\. Grant/,
    );
  });

  it('reports that the configured schema does not exist', async () => {
    const { code, stderr } = await migrate({
      DATABASE_URL: database.url,
      DATABASE_SCHEMA: 'nowhere',
    });
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'PostgreSQL returned an error: schema "nowhere" does not exist (3F000).\n',
    });
    expect(await readCatalog(database, { ours: true })).toEqual(['schema public']);
  });
});

function linesWith(prefix: string, report: string): string[] {
  return report.split('\n').filter((line) => line.startsWith(prefix));
}

/** Starts a server that refuses every connection as PgBouncer does, or never responds. */
async function startPooler(
  refusal: string | null,
  onStart: (server: Server) => void,
): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', () => {
      if (refusal !== null) socket.end(errorResponse(refusal));
    });
  });
  onStart(server.listen(0, '127.0.0.1'));
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : address;
  return `postgresql://gate:${PASSWORD}@127.0.0.1:${port}/app`;
}

function errorResponse(message: string): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C08P01\0M${message}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}
