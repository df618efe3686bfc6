import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defineEntity, type EntityMetadata, p } from '@mikro-orm/core';
import { MikroORM } from '@mikro-orm/postgresql';
import { ormOptions, type OrmSetting } from '../../mikro-orm.config.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { inspectWith } from '../../src/database/inspect.js';
import { readCatalog } from '../support/pg-catalog.js';
import { User } from '../../src/better-auth/user.entity.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { TABLE_LAYOUTS } from '../support/table-layouts.js';
import { runBuilt } from '../support/built-program.js';

/** Objects of an application beside Better-Auth's tables and in its own schema. */
const applicationDdl = (schema: string) => `
  create type "${schema}".mood as enum ('good', 'bad');
  create table "${schema}".invoice (id serial primary key, amount numeric not null, mood "${schema}".mood);
  create index invoice_amount_idx on "${schema}".invoice (amount);
  create view "${schema}".open_invoice as select * from "${schema}".invoice where amount > 0;
  create function "${schema}".nothing() returns int language sql as 'select 0';
  create schema app;
  create table app.project (id serial primary key, name text);
  create function app.nothing() returns int language sql as 'select 0'`;

describe.each(TABLE_LAYOUTS)('schema diff of MikroORM ($name)', ({ name, ddl, schema }) => {
  let database: TestDatabase;
  let setting: OrmSetting;
  let orm: MikroORM;

  beforeAll(async () => {
    database = await createDatabase({ empty: true });
    await database.sql(ddl);
    await database.sql(applicationDdl(schema ?? 'public'));
    const variables = {
      DATABASE_URL: database.url,
      ...(schema === undefined ? {} : { DATABASE_SCHEMA: schema }),
    };
    await runBuilt('src/cli/migrate.js', variables);
    const environment = parseEnvironment({ NODE_ENV: 'test', ...variables });
    const url = environment.DATABASE_URL;
    const physical = await withConnection(url, (client) => inspectWith(client, environment));
    setting = { url, poolMax: 2, physical };
    orm = await MikroORM.init(ormOptions(setting));
  });

  afterAll(async () => {
    await orm?.close(true);
    await database?.drop();
  });

  it(`finds no difference in the tables of Better-Auth and of the application (${name})`, async () => {
    const { up, down } = await orm.schema.getUpdateSchemaMigrationSQL({ wrap: false });
    expect({ up, down }).toEqual({ up: '', down: '' });
    expect(await orm.migrator.getPending()).toEqual([]);
    expect(await orm.schema.getUpdateSchemaSQL({ wrap: false })).toBe('');
    expect(await orm.migrator.checkSchema()).toBe(false);
  });

  it(`creates an empty migration when nothing changed (${name})`, async () => {
    const folder = mkdtempSync(join(tmpdir(), 'gatehouse-diff-'));
    try {
      expect(await orm.migrator.create(folder)).toMatchObject({ diff: { up: [], down: [] } });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it(`refuses schema:drop and schema:fresh, and keeps all tables on schema:update (${name})`, async () => {
    const before = await readCatalog(database, { ours: true });
    const refusal = 'Gatehouse never drops or empties anything';
    await expect(orm.schema.drop({ dropMigrationsTable: true })).rejects.toThrow(refusal);
    await expect(orm.schema.drop({ dropDb: true })).rejects.toThrow(refusal);
    await expect(orm.schema.refresh()).rejects.toThrow(refusal);
    await expect(orm.schema.refresh({ dropDb: true })).rejects.toThrow(refusal);
    await expect(orm.schema.clear()).rejects.toThrow(refusal);
    await expect(orm.schema.clear({ truncate: false })).rejects.toThrow(refusal);
    await orm.schema.create();
    await orm.schema.update();
    expect(await readCatalog(database, { ours: true })).toEqual(before);
    const [row] = await database.sql('select count(*)::int as kept from gatehouse.migration');
    expect(row?.['kept']).toBeGreaterThan(3);
  });

  it(`creates a table for an entity of an extension in its schema (${name})`, async () => {
    const Note = defineEntity({
      name: 'Note',
      properties: { id: p.integer().primary(), owner: () => p.manyToOne(User) },
    });
    const withNote = await MikroORM.init(
      ormOptions({
        ...setting,
        extensions: { modules: [], schema: 'own', entities: [Note], migrations: [] },
      }),
    );
    try {
      const sql = await withNote.schema.getUpdateSchemaSQL({ wrap: false });
      expect(sql.split('\n').filter(Boolean)).toEqual([
        'create schema if not exists "own";',
        expect.stringMatching(/^create table "own"."note" \(.*\);$/),
        expect.stringMatching(/^alter table "own"."note" add constraint .* foreign key .*;$/),
      ]);
      await withNote.schema.execute(sql);
      expect(await withNote.schema.getUpdateSchemaSQL({ wrap: false })).toBe('');
    } finally {
      await withNote.close(true);
    }
  });

  it(`keeps an entity of an extension apart that has the name of one of Gatehouse (${name})`, async () => {
    const Account = defineEntity({
      name: 'Account',
      schema: 'own',
      properties: { id: p.integer().primary() },
    });
    const extensions = { modules: [], schema: 'own', entities: [Account], migrations: [] };
    const withAccount = await MikroORM.init(ormOptions({ ...setting, extensions }));
    try {
      const table = ({ schema: own, tableName }: EntityMetadata) => `${own}.${tableName}`;
      const tables = [...withAccount.getMetadata().getAll().values()].map(table);
      expect(tables.filter((found) => found === 'own.account')).toHaveLength(1);
      expect(new Set(tables).size).toBe(tables.length);
    } finally {
      await withAccount.close(true);
    }
  });

  it(`refuses an entity of an extension in a schema of others (${name})`, async () => {
    const Note = defineEntity({
      name: 'Note',
      schema: schema ?? 'public',
      properties: { id: p.integer().primary() },
    });
    const extensions = { modules: [], schema: 'own', entities: [Note], migrations: [] };
    await expect(MikroORM.init(ormOptions({ ...setting, extensions }))).rejects.toThrow(
      'Entities of your own are in schema "own"',
    );
  });
});
