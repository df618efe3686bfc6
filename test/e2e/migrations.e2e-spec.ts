import { MikroORM } from '@mikro-orm/postgresql';
import { startBetterAuth } from '../../tools/better-auth.ts';
import { MIGRATIONS, ormOptions } from '../../mikro-orm.config.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { inspectWith } from '../../src/database/inspect.js';
import { readCatalog } from '../support/pg-catalog.js';
import { signUp } from '../support/users.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { type ProgramResult, runBuilt } from '../support/built-program.js';

/** Each is three processes. The race is lost in about every second round without the lock. */
const ROUNDS = { empty: 20, pending: 5 };

const NAMES = MIGRATIONS.map(({ name }) => name);

let database: TestDatabase;
const migrate = () => runBuilt('src/cli/migrate.js', { DATABASE_URL: database.url });

describe('three replicas that migrate at once', () => {
  it(
    'make the tables of a new database once',
    async () => {
      for (let round = 1; round <= ROUNDS.empty; round += 1) {
        database = await createDatabase({ empty: true });
        const outcomes = await Promise.all([migrate(), migrate(), migrate()]);
        expect(applied(outcomes)).toEqual(NAMES);
        expect(await recorded(database)).toEqual(NAMES);
        await database.drop();
      }
    },
    ROUNDS.empty * 10_000,
  );

  it(
    'apply what is pending once',
    async () => {
      for (let round = 1; round <= ROUNDS.pending; round += 1) {
        database = await createDatabase();
        await withMigrator(database, (migrator) => migrator.down());
        const before = await recorded(database);
        const outcomes = await Promise.all([migrate(), migrate(), migrate()]);
        expect([...before, ...applied(outcomes)]).toEqual(NAMES);
        expect(await recorded(database)).toEqual(NAMES);
        await database.drop();
      }
    },
    ROUNDS.pending * 10_000,
  );
});

describe('one after another', () => {
  beforeEach(async () => {
    database = await createDatabase({ empty: true });
  });

  afterEach(() => database.drop());

  it('go up, down and up again', async () => {
    await database.drop();
    database = await createDatabase();
    const migrated = await readCatalog(database, { ours: true });
    const betterAuths = await readCatalog(database);

    await withMigrator(database, (migrator) => migrator.down({ to: 0 }));
    expect(await recorded(database)).toEqual([]);
    expect(await readCatalog(database)).toEqual(betterAuths);
    expect(await migrate()).toMatchObject({ code: 0, stderr: '' });
    expect(await readCatalog(database, { ours: true })).toEqual(migrated);
    expect(await migrate()).toMatchObject({ code: 0, stdout: 'nothing to apply\n' });
  });

  it("make Better-Auth's tables as its own migrator does", async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url, migrate: true });
    await auth.stop();
    const itsOwn = await readCatalog(database);
    const ours = await createDatabase();
    try {
      expect(itsOwn.length).toBeGreaterThan(60);
      expect(await readCatalog(ours)).toEqual(itsOwn);
    } finally {
      await ours.drop();
    }
  });

  it('suit a Better-Auth that was there first', async () => {
    const auth = await startBetterAuth({ databaseUrl: database.url, migrate: true });
    try {
      const ada = await signUp(auth);
      const before = await readCatalog(database);
      expect(await migrate()).toMatchObject({ code: 0, stderr: '' });
      expect(await readCatalog(database)).toEqual(before);
      await signUp(auth);
      // Its verdict over the tables is kept until its next start.
      await auth.restart();
      await signUp(auth);
      expect(await auth.signIn(ada)).toMatchObject({ user: { id: ada.id } });
    } finally {
      await auth.stop();
    }
  });

  it('suit a Better-Auth that comes after them', async () => {
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

  it('keep every row', async () => {
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

/** The names that they say they applied; all three must have ended well. */
function applied(outcomes: ProgramResult[]): string[] {
  for (const { code, stderr } of outcomes)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return outcomes
    .flatMap(({ stdout }) => stdout.trim().split('\n'))
    .filter((line) => line !== 'nothing to apply')
    .map((line) => line.replace('applied ', ''));
}

async function recorded(migrated: TestDatabase): Promise<string[]> {
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
