import type { MikroORM } from '@mikro-orm/core';
import { type SqlEntityManager, SqlSchemaGenerator } from '@mikro-orm/postgresql';

/**
 * MikroORM's schema generator for a database that other applications share. It compares nothing in
 * the schemas of `ignoreSchema`, and it refuses to drop or empty anything.
 *
 * MikroORM applies `ignoreSchema` to tables and views, but not to enum types, functions and
 * schemas.
 */
export class GuardedSchemaGenerator extends SqlSchemaGenerator {
  static override register(orm: MikroORM): void {
    orm.config.registerExtension(
      '@mikro-orm/schema-generator',
      () => new GuardedSchemaGenerator(orm.em as SqlEntityManager),
    );
  }

  override diffToSQL(...[diff, options]: Parameters<SqlSchemaGenerator['diffToSQL']>): string {
    const ignored = new Set(this.options.ignoreSchema);
    const isOurs = ({ schema = this.platform.getDefaultSchemaName() }: { schema?: string }) =>
      schema === undefined || !ignored.has(schema);
    const ours = <Part extends { schema?: string }>(parts: Record<string, Part>) =>
      Object.fromEntries(Object.entries(parts).filter(([, part]) => isOurs(part)));
    return super.diffToSQL(
      {
        ...diff,
        newNamespaces: new Set([...diff.newNamespaces].filter((name) => !ignored.has(name))),
        // A schema can contain objects that MikroORM does not know.
        removedNamespaces: new Set(),
        newNativeEnums: diff.newNativeEnums.filter(isOurs),
        removedNativeEnums: diff.removedNativeEnums.filter(isOurs),
        newRoutines: ours(diff.newRoutines),
        removedRoutines: ours(diff.removedRoutines),
      },
      options,
    );
  }

  /** For `schema:drop` and `schema:fresh`. */
  override getDropSchemaSQL(): Promise<never> {
    return refuse();
  }

  override dropDatabase(): Promise<never> {
    return refuse();
  }

  override clear(): Promise<never> {
    return refuse();
  }
}

function refuse(): Promise<never> {
  return Promise.reject(
    new Error('Gatehouse never drops or empties anything: Better-Auth shares this database.'),
  );
}
