import type { Options } from '@mikro-orm/postgresql';
import type { Type } from '@nestjs/common';

/** What an application adds to Gatehouse. */
export interface Extensions {
  /** The modules. Their routes are below `/api/v1`. */
  modules: Type[];
  /**
   * The schema of the entities. Nothing else may be in it: MikroORM compares the whole schema with
   * the entities, and no other one. The other schemas belong to Better-Auth, Gatehouse and others.
   */
  schema: string;
  entities: NonNullable<Options['entities']>;
  /** The migrations of these entities, in the order in which they run. */
  migrations: NonNullable<NonNullable<Options['migrations']>['migrationsList']>;
}

/** Add yours here. A new release of Gatehouse never changes this file. */
export const extensions: Extensions = {
  modules: [],
  schema: 'app',
  entities: [],
  migrations: [],
};
