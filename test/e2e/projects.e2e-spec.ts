import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Migration } from '@mikro-orm/migrations';
import { InjectRepository, MikroOrmModule } from '@mikro-orm/nestjs';
import { type Constructor, EntityRepository, MikroORM } from '@mikro-orm/postgresql';
import { ConflictException, Controller, Get, Module, Param } from '@nestjs/common';
import { CurrentUser } from '../../src/access/decorators.js';
import type { UserRow } from '../../src/access/principal.js';
import { ormOptions } from '../../mikro-orm.config.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { WithoutOrm } from '../../src/http/orm-context.guard.js';
import { grantToRuntimeRole } from '../../src/database/runtime-role.js';
import { inspectWith } from '../../src/database/inspect.js';
import type { Extensions } from '../../src/extensions.js';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { Project } from '../docs/projects/project.entity.js';
import { ProjectsModule } from '../docs/projects/projects.module.js';
import { Problems } from '../../src/problems/problems.decorator.js';
import { runBuilt } from '../support/built-program.js';
import { TABLE_LAYOUTS } from '../support/table-layouts.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { signUp, type TestUser } from '../support/users.js';

@Controller('rejected')
@Problems('CONFLICT', 'NOT_FOUND', 'UNPROCESSABLE')
class RejectedController {
  constructor(@InjectRepository(Project) private readonly projects: EntityRepository<Project>) {}

  @Get('unknown-reference/:owner')
  unknownReference(@Param('owner') owner: string) {
    return this.insert({ name: 'Engine', owner });
  }

  @Get('long-text')
  longText(@CurrentUser() { id }: UserRow) {
    return this.insert({ name: 'x'.repeat(101), owner: id });
  }

  /** Changes a row and fails before it is saved. */
  @Get('change-and-fail/:id')
  async changeAndFail(@Param('id') id: string): Promise<never> {
    const project = await this.projects.findOneOrFail(id);
    project.name = 'Never saved';
    throw new ConflictException();
  }

  @Get('without-context')
  @WithoutOrm()
  withoutContext() {
    return this.projects.findAll();
  }

  @Get('missing-row')
  missingRow() {
    return this.projects.findOneOrFail({ name: 'none' });
  }

  private insert(values: { name: string; owner: string }) {
    this.projects.create(values);
    return this.projects.getEntityManager().flush();
  }
}

@Module({
  imports: [MikroOrmModule.forFeature([Project])],
  controllers: [RejectedController],
})
class RejectedModule {}

it.each([
  'project.entity.ts',
  'project.dto.ts',
  'project.problems.ts',
  'projects.service.ts',
  'projects.controller.ts',
  'projects.module.ts',
  'add-projects.ts',
  'projects.e2e-spec.ts',
])('keeps the example file %s identical to the documents', (name) => {
  const code = readFileSync(`test/docs/projects/${name}`, 'utf8');
  // The files of a fork are in `src/projects`, `migrations` and `test/e2e`.
  const shown = code
    .replaceAll('../../../src/', '../')
    .replaceAll('../../support/', '../support/')
    .replaceAll('./projects.extensions.js', '../../src/extensions.js')
    .trim();
  expect(readFileSync('docs/nest-developers.md', 'utf8')).toContain(shown);
});

describe.each(TABLE_LAYOUTS)('example module with a table of its own ($name)', (layout) => {
  const { name, ddl, issuer, schema, users, idType } = layout;
  const extensions: Extensions = {
    modules: [ProjectsModule, RejectedModule],
    schema: 'app',
    entities: [Project],
    migrations: [],
  };
  const role = `projects_${process.pid}_${TABLE_LAYOUTS.indexOf(layout)}`;
  let database: TestDatabase;
  let variables: Record<string, string>;
  let auth: BetterAuth;
  let orm: MikroORM;
  let gatehouse: RunningApp;
  let folder: string;
  let generated: string;
  let ada: TestUser;
  let bob: TestUser;
  let root: TestUser;

  beforeAll(async () => {
    database = await createDatabase({ empty: true });
    await database.sql(ddl);
    variables = {
      DATABASE_URL: database.url,
      ...(schema === undefined ? {} : { DATABASE_SCHEMA: schema }),
    };
    expect(await runBuilt('src/cli/migrate.js', variables)).toMatchObject({ code: 0 });
    // Inside the project, so that the generated file finds its packages.
    folder = mkdtempSync(resolve('dist/migrations-'));
    generated = await createMigration();
    orm = await openOrm();
    const runtimeUrl = await createRuntimeRole();
    await migrate();
    auth = await startBetterAuth({ databaseUrl: database.url, ...issuer });
    gatehouse = await startApp(
      { ...variables, DATABASE_URL: runtimeUrl, BETTER_AUTH_URL: auth.origin },
      extensions,
    );
    [ada, bob, root] = [await signUp(auth), await signUp(auth), await signUp(auth)];
    await database.sql(`update ${users} set role = 'admin' where id::text = $1`, [root.id]);
  }, 60_000);

  afterAll(async () => {
    await gatehouse?.close();
    await auth?.stop();
    await orm?.close(true);
    await database?.sql(`drop owned by ${role}; drop role ${role}`);
    await database?.drop();
    rmSync(folder, { recursive: true, force: true });
  });

  async function createRuntimeRole(): Promise<string> {
    const url = new URL(database.directUrl);
    [url.username, url.password] = [role, 'r7nt1me0nly'];
    await database.sql(`create role ${role} login password '${url.password}'`);
    return url.href;
  }

  /** Applies the migrations and grants the rights, as `npm run migrate` does. */
  async function migrate(): Promise<void> {
    await orm.migrator.up();
    await withConnection(database.directUrl, async (client) => {
      const environment = parseEnvironment({ NODE_ENV: 'test', ...variables });
      await grantToRuntimeRole(client, role, await inspectWith(client, environment), 'app');
    });
  }

  async function openOrm(): Promise<MikroORM> {
    const environment = parseEnvironment({ NODE_ENV: 'test', ...variables });
    const url = database.directUrl;
    const physical = await withConnection(url, (client) => inspectWith(client, environment));
    return MikroORM.init(ormOptions({ url, poolMax: 2, physical, extensions }));
  }

  /** As `npm run migration:create` does. Returns the code of the new migration. */
  async function createMigration(): Promise<string> {
    const creator = await openOrm();
    const { fileName, code } = await creator.migrator.create(folder, false, false, 'add-projects');
    await creator.close(true);
    const exported = (await import(pathToFileURL(join(folder, fileName)).href)) as Record<
      string,
      Constructor<Migration>
    >;
    extensions.migrations.push(...Object.values(exported));
    return code;
  }

  const send = async (method: string, path: string, user: TestUser, body?: object) => {
    const options = { method, token: user.token, ...(body && { body }) };
    const response = await gatehouse.call(`/api/v1/projects${path}`, options);
    // oxlint-disable-next-line typescript/no-explicit-any -- each test says what it expects
    return [response.status, response.body?.code ?? response.body] as [number, any];
  };

  it(`generates a migration of its own table only (${name})`, () => {
    const statements = [...generated.matchAll(/addSql\(`(.*)`\)/g)].map(([, sql = '']) => sql);
    expect(statements).toEqual([
      'create schema if not exists "app";',
      expect.stringMatching(
        new RegExp(`^create table "app"."project" \\(.*"owner_id" ${idType} not null`),
      ),
      'create index "project_owner_id_index" on "app"."project" ("owner_id");',
      expect.stringMatching(
        /^alter table "app"."project" add constraint .* foreign key \("owner_id"\) references .* on delete cascade;$/,
      ),
      'drop table if exists "app"."project" cascade;',
    ]);
  });

  it(`applies and reverts the generated migration, and finds no difference then (${name})`, async () => {
    expect(await orm.schema.getUpdateSchemaSQL({ wrap: false })).toBe('');
    await orm.migrator.down();
    const tables = () =>
      database.sql(`select tablename from pg_tables where schemaname = 'app' order by 1`);
    expect(await tables()).toEqual([]);
    await migrate();
    expect(await tables()).toEqual([{ tablename: 'project' }]);
  });

  it(`creates, lists, changes and deletes the rows of a user (${name})`, async () => {
    const [status, engine] = await send('POST', '', ada, { name: 'Engine' });
    expect([status, engine]).toEqual([
      201,
      expect.objectContaining({ name: 'Engine', archived: false, owner: ada.id }),
    ]);
    await send('POST', '', bob, { name: 'Other' });
    expect(await send('GET', '', ada)).toEqual([200, [engine]]);
    const renamed = { ...engine, name: 'Analytical Engine' };
    expect(await send('PATCH', `/${engine.id}`, ada, { name: renamed.name })).toEqual([
      200,
      renamed,
    ]);
    expect(await send('DELETE', `/${engine.id}`, ada)).toEqual([204, undefined]);
    expect(await send('GET', '', ada)).toEqual([200, []]);
  });

  it(`lets only the owner and admins change a row (${name})`, async () => {
    const [, { id }] = await send('POST', '', ada, { name: 'Mine' });
    expect(await send('PATCH', `/${id}`, bob, { name: 'His' })).toEqual([403, 'AUTH_FORBIDDEN']);
    expect(await send('PATCH', `/${id}`, root, { name: 'Hers' })).toMatchObject([200, {}]);
    expect(await send('DELETE', `/${id}`, bob)).toEqual([403, 'AUTH_FORBIDDEN']);
  });

  it(`responds with a registered problem (${name})`, async () => {
    const [, { id }] = await send('POST', '', ada, { name: 'Old' });
    expect(await send('PATCH', `/${id}`, ada, { archived: true })).toMatchObject([200, {}]);
    expect(await send('PATCH', `/${id}`, ada, { name: 'New' })).toEqual([409, 'PROJECT_ARCHIVED']);
  });

  it(`responds with 404 to an id that is unknown or invalid (${name})`, async () => {
    for (const id of ['0190a3c4-0000-7000-8000-000000000000', 'abc', '1']) {
      const response = await gatehouse.call(`/api/v1/projects/${id}`, {
        method: 'DELETE',
        token: ada.token,
      });
      expect([response.status, response.body.code]).toEqual([404, 'NOT_FOUND']);
    }
  });

  it(`responds with a client error to values that PostgreSQL rejects (${name})`, async () => {
    const responseTo = async (path: string) => {
      const response = await gatehouse.call(`/api/v1/rejected/${path}`, { token: ada.token });
      return [response.status, response.body.code];
    };
    const unknown = idType === 'uuid' ? '0190a3c4-0000-7000-8000-000000000000' : '2147483647';
    expect(await responseTo(`unknown-reference/${unknown}`)).toEqual([409, 'CONFLICT']);
    expect(await responseTo('missing-row')).toEqual([404, 'NOT_FOUND']);
    expect(await responseTo('long-text')).toEqual([422, 'UNPROCESSABLE']);
    expect(await send('POST', '', ada, { name: 'a\0b' })).toEqual([400, 'MALFORMED_REQUEST']);
  });

  it(`keeps the unsaved changes of a failed request out of later requests (${name})`, async () => {
    const [, { id }] = await send('POST', '', ada, { name: 'Engine' });
    const path = `/api/v1/rejected/change-and-fail/${id}`;
    expect((await gatehouse.call(path, { token: ada.token })).status).toBe(409);
    // This request writes all changes of its own identity map.
    await send('POST', '', ada, { name: 'Other' });
    expect(await database.sql('select name from app.project where id = $1', [id])).toEqual([
      { name: 'Engine' },
    ]);
  });

  it(`logs why a repository failed in a route with @WithoutOrm() (${name})`, async () => {
    const path = '/api/v1/rejected/without-context';
    const { status, body } = await gatehouse.call(path, { token: ada.token });
    expect([status, body.code]).toEqual([500, 'INTERNAL_ERROR']);
    const line = gatehouse.lines.find(
      (found) => found['requestId'] === body.requestId && found['err'],
    );
    expect(JSON.stringify(line)).toContain('Using global EntityManager instance methods');
  });

  it(`does not start with an entity that src/extensions.ts does not list (${name})`, async () => {
    const variables = { DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin };
    await expect(startApp(variables, { modules: [ProjectsModule] })).rejects.toThrow(
      'Metadata for entity Project not found',
    );
  });

  it(`deletes the rows of a user that Better-Auth deletes (${name})`, async () => {
    const eve = await signUp(auth);
    await send('POST', '', eve, { name: 'Gone' });
    await database.sql(`delete from ${users} where id::text = $1`, [eve.id]);
    expect(await database.sql(`select from app.project where name = 'Gone'`)).toEqual([]);
  });
});
