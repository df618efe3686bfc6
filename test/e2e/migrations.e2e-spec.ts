import { readdirSync, readFileSync } from 'node:fs';
import { MikroORM } from '@mikro-orm/postgresql';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { migrationNames, ormOptions } from '../../mikro-orm.config.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { inspectWith } from '../../src/database/inspect.js';
import { readCatalog } from '../support/pg-catalog.js';
import { signUp } from '../support/users.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { type ProgramResult, runBuilt } from '../support/built-program.js';

/** Each round starts three processes. Without the lock, about every second round fails. */
const ROUNDS = { empty: 20, pending: 5 };

const NAMES = migrationNames();

it('lists every file of migrations/ in the configuration or in src/extensions.ts', () => {
  const code = ['mikro-orm.config.ts', 'src/extensions.ts'].map((path) =>
    readFileSync(path, 'utf8'),
  );
  const unlisted = readdirSync('migrations').filter(
    (file) => !code.join().includes(`migrations/${file.replace(/\.ts$/, '.js')}'`),
  );
  expect(unlisted).toEqual([]);
});

let database: TestDatabase;
const migrate = () => runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url });

// A rollback starts the older release on the newer schema.
it('ignores the migrations of a newer release', async () => {
  database = await createDatabase();
  try {
    await withConnection(database.url, (client) =>
      client.query(`insert into gatehouse.migration (name) values ('29991231000000-newer')`),
    );
    expect(await migrate()).toMatchObject({ code: 0, stdout: 'nothing to apply\n' });
    expect(await recordedNames(database)).toEqual([...NAMES, '29991231000000-newer']);
  } finally {
    await database.drop();
  }
});

describe('concurrent migrations', () => {
  it(
    'creates the tables of a new database once when three replicas migrate at the same time',
    async () => {
      for (let round = 1; round <= ROUNDS.empty; round += 1) {
        database = await createDatabase({ empty: true });
        const outcomes = await Promise.all([migrate(), migrate(), migrate()]);
        expect(appliedNames(outcomes)).toEqual(NAMES);
        expect(await recordedNames(database)).toEqual(NAMES);
        await database.drop();
      }
    },
    ROUNDS.empty * 10_000,
  );

  it(
    'applies pending migrations once when three replicas migrate at the same time',
    async () => {
      for (let round = 1; round <= ROUNDS.pending; round += 1) {
        database = await createDatabase();
        await withMigrator(database, (migrator) => migrator.down());
        const before = await recordedNames(database);
        const outcomes = await Promise.all([migrate(), migrate(), migrate()]);
        expect([...before, ...appliedNames(outcomes)]).toEqual(NAMES);
        expect(await recordedNames(database)).toEqual(NAMES);
        await database.drop();
      }
    },
    ROUNDS.pending * 10_000,
  );
});

describe('consecutive migrations', () => {
  beforeEach(async () => {
    database = await createDatabase({ empty: true });
  });

  afterEach(() => database.drop());

  it('restores the same schema when it migrates down and up again', async () => {
    await database.drop();
    database = await createDatabase();
    const migrated = await readCatalog(database, { ours: true });
    const betterAuthTables = await readCatalog(database);

    await withMigrator(database, (migrator) => migrator.down({ to: 0 }));
    expect(await recordedNames(database)).toEqual([]);
    expect(await readCatalog(database)).toEqual(betterAuthTables);
    expect(await migrate()).toMatchObject({ code: 0, stderr: '' });
    expect(await readCatalog(database, { ours: true })).toEqual(migrated);
    expect(await migrate()).toMatchObject({ code: 0, stdout: 'nothing to apply\n' });
  });

  it('replaces the notifying triggers of an earlier release, even if it creates them again', async () => {
    await database.drop();
    database = await createDatabase();
    const migrated = await readCatalog(database, { ours: true });
    for (const table of ['user', 'session']) {
      await database.sql(`
        create function gatehouse.announce_${table}_change() returns trigger language plpgsql
          as 'begin return null; end';
        create trigger gatehouse_announce_update after update on "${table}"
          for each statement execute function gatehouse.announce_${table}_change()`);
    }
    const applied = 'applied the triggers of the change feed, which were missing or obsolete\n';
    expect(await migrate()).toMatchObject({ code: 0, stderr: '', stdout: applied });
    expect(await readCatalog(database, { ours: true })).toEqual(migrated);
    const left = await database.sql(`select from pg_proc where proname like 'announce%'`);
    expect(left).toEqual([]);
  });

  it("creates the tables of Better-Auth exactly as Better-Auth's own migrator does", async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url, migrate: true });
    await auth.stop();
    const betterAuthTables = await readCatalog(database);
    const migrated = await createDatabase();
    try {
      expect(betterAuthTables.length).toBeGreaterThan(60);
      expect(await readCatalog(migrated)).toEqual(betterAuthTables);
    } finally {
      await migrated.drop();
    }
  });

  it('keeps the tables of a Better-Auth that was installed before Gatehouse', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url, migrate: true });
    try {
      const ada = await signUp(auth);
      const before = await readCatalog(database);
      expect(await migrate()).toMatchObject({ code: 0, stderr: '' });
      expect(await readCatalog(database)).toEqual(before);
      await signUp(auth);
      // Better-Auth caches its check of the tables until it restarts.
      await auth.restart();
      await signUp(auth);
      expect(await auth.signIn(ada)).toMatchObject({ user: { id: ada.id } });
    } finally {
      await auth.stop();
    }
  });

  it('supports a Better-Auth that is installed after the migrations', async () => {
    expect(await migrate()).toMatchObject({ code: 0, stderr: '' });
    const before = await readCatalog(database, { ours: true });
    const auth = await startBetterAuth({ databaseUrl: database.url });
    try {
      const ada = await signUp(auth);
      await auth.restart({ migrate: true });
      expect(await readCatalog(database, { ours: true })).toEqual(before);
      expect(await auth.signIn(ada)).toMatchObject({ user: { id: ada.id } });
      expect(await migrate()).toMatchObject({ code: 0, stdout: 'nothing to apply\n' });
    } finally {
      await auth.stop();
    }
  });

  it('keeps every row of Better-Auth when it migrates up and down', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url, migrate: true });
    const ada = await signUp(auth);
    await auth.stop();
    const rows = () =>
      database.sql(`select to_jsonb(u) as row from "user" u union all
        select to_jsonb(s) from session s union all select to_jsonb(a) from account a
        union all select to_jsonb(j) from jwks j order by 1`);
    const before = await rows();
    expect(before.length).toBeGreaterThanOrEqual(4);
    await migrate();
    await withMigrator(database, (migrator) => migrator.down({ to: 0 }));
    expect(await rows()).toEqual(before);
    expect(JSON.stringify(before)).toContain(ada.email);
  });
});

/** Returns the migrations that the processes applied. Expects that all processes succeeded. */
function appliedNames(outcomes: ProgramResult[]): string[] {
  for (const { code, stderr } of outcomes)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return outcomes
    .flatMap(({ stdout }) => stdout.trim().split('\n'))
    .filter((line) => line !== 'nothing to apply')
    .map((line) => line.replace('applied ', ''));
}

async function recordedNames(migrated: TestDatabase): Promise<string[]> {
  const rows = await migrated.sql<{ name: string }>(
    'select name from gatehouse.migration order by id',
  );
  return rows.map(({ name }) => name);
}

async function withMigrator<Result>(
  { url }: TestDatabase,
  work: (migrator: MikroORM['migrator']) => Promise<Result>,
): Promise<Result> {
  const environment = parseEnvironment({ NODE_ENV: 'test', DATABASE_URL: url });
  const physical = await withConnection(url, (client) => inspectWith(client, environment));
  const orm = await MikroORM.init(ormOptions({ url, poolMax: 2, physical }));
  try {
    return await work(orm.migrator);
  } finally {
    await orm.close(true);
  }
}
