import { Migrator } from '@mikro-orm/migrations';
import { defineConfig, type Options } from '@mikro-orm/postgresql';
import type { Pool } from 'pg';
import { AdoptBetterAuthTables } from './migrations/20261121000000-adopt-better-auth-tables.js';
import { AuditEventTable } from './migrations/20261121010000-audit-event.js';
import { ListIndexes } from './migrations/20261121020000-list-indexes.js';
import { ChangeFeedTriggers } from './migrations/20261121030000-change-feed.js';
import { BoundedIndexes } from './migrations/20261128000000-bounded-indexes.js';
import { AuditRequestIds } from './migrations/20261128010000-audit-request-ids.js';
import { ImpersonationIndex } from './migrations/20261128011000-impersonation-index.js';
import { AlwaysTriggers } from './migrations/20261128020000-always-triggers.js';
import { AuditRetention } from './migrations/20261128120000-audit-retention.js';
import { LargeListIndexes } from './migrations/20261128130000-large-list-indexes.js';
import { SessionListIndexes } from './migrations/20261128131000-session-list-indexes.js';
import { ChangeTable } from './migrations/20261128140000-change-table.js';
import { Account } from './src/better-auth/account.entity.js';
import { AuditEvent } from './src/audit/audit-event.entity.js';
import { readEnvironment } from './src/config/environment.js';
import { GuardedSchemaGenerator } from './src/database/guarded-schema-generator.js';
import {
  discardReadOnlyConnections,
  enforceQueryTimeout,
  MAX_LIFETIME_SECONDS,
  POOL_WAIT_TIMEOUT_MS,
  PooledClient,
  QUERY_TIMEOUT_MS,
  releaseLostConnections,
  withConnection,
} from './src/database/connection.js';
import { mapToPhysical, placeInSchema } from './src/database/entity-mapping.js';
import { type Extensions, extensions as configuredExtensions } from './src/extensions.js';
import { inspectWith, requireUsable } from './src/database/inspect.js';
import type { PhysicalSchema } from './src/database/physical-schema.js';
import { Verification } from './src/better-auth/verification.entity.js';
import { Session } from './src/better-auth/session.entity.js';
import { User } from './src/better-auth/user.entity.js';

const ENTITIES = [User, Session, Account, Verification, AuditEvent];
const BUILT_IN: ReadonlySet<unknown> = new Set(ENTITIES);

/** In the order in which they run. The name of a released migration never changes. */
const MIGRATIONS = [
  { name: '20261121000000-adopt-better-auth-tables', class: AdoptBetterAuthTables },
  { name: '20261121010000-audit-event', class: AuditEventTable },
  { name: '20261121020000-list-indexes', class: ListIndexes },
  { name: '20261121030000-change-feed', class: ChangeFeedTriggers },
  { name: '20261128000000-bounded-indexes', class: BoundedIndexes },
  { name: '20261128010000-audit-request-ids', class: AuditRequestIds },
  { name: '20261128011000-impersonation-index', class: ImpersonationIndex },
  { name: '20261128020000-always-triggers', class: AlwaysTriggers },
  { name: '20261128120000-audit-retention', class: AuditRetention },
  { name: '20261128130000-large-list-indexes', class: LargeListIndexes },
  { name: '20261128131000-session-list-indexes', class: SessionListIndexes },
  { name: '20261128140000-change-table', class: ChangeTable },
];

/** The migrations of Gatehouse and of the extensions, as recorded in the database. */
export const migrationNames = ({ migrations }: Extensions = configuredExtensions): string[] =>
  [...MIGRATIONS, ...migrations].map(({ name }) => name);

export interface OrmSetting {
  url: string;
  poolMax: number;
  physical: PhysicalSchema;
  extensions?: Extensions;
  /** The query timeout. Null means none, for migrations. */
  queryTimeoutMs?: number | null;
  /** Receives the warnings of MikroORM about connections. */
  warn?: (message: string) => void;
}

/** The one ORM configuration, for the service, the migrations and the tests. */
export function ormOptions({
  url,
  poolMax,
  physical,
  extensions = configuredExtensions,
  queryTimeoutMs = QUERY_TIMEOUT_MS,
  warn,
}: OrmSetting): Options {
  const { schema, entities, migrations } = extensions;
  return defineConfig({
    clientUrl: url,
    entities: [...ENTITIES, ...entities],
    // Always set, because MikroORM's default is `public`, whatever the search_path is.
    schema: physical.schema,
    discovery: {
      onMetadata: (meta) =>
        BUILT_IN.has(meta.class) ? mapToPhysical(meta, physical) : placeInSchema(meta, schema),
    },
    pool: { min: 0, max: poolMax },
    driverOptions: {
      connectionString: url,
      application_name: 'gatehouse',
      connectionTimeoutMillis: POOL_WAIT_TIMEOUT_MS,
      maxLifetimeSeconds: MAX_LIFETIME_SECONDS,
      Client: PooledClient,
      keepAlive: true,
      onPoolCreated: (pool: Pool) => {
        releaseLostConnections(pool);
        discardReadOnlyConnections(pool);
        if (queryTimeoutMs !== null) enforceQueryTimeout(pool, queryTimeoutMs);
      },
    },
    // A DTO for PATCH has all its fields, and undefined for those that the client did not send.
    assign: { ignoreUndefined: true },
    logger: (message) => warn?.(message),
    colors: false,
    extensions: [Migrator, GuardedSchemaGenerator],
    migrations: {
      tableName: 'gatehouse.migration',
      migrationsList: [...MIGRATIONS, ...migrations],
      // For `migration:create`.
      path: 'migrations',
      emit: 'ts',
      fileName: (timestamp, name = 'change') => `${timestamp}-${name}`,
      // A transaction for each migration, because some cannot run in one.
      allOrNothing: false,
      // MikroORM would write a snapshot file with the database's name on every run.
      snapshot: false,
      disableForeignKeys: false,
    },
    schemaGenerator: {
      // Not read from the database: the difference would be to drop it.
      ignoreSchema: physical.schemas.filter((name) => entities.length === 0 || name !== schema),
      // Not expected there either: the difference would be to create it.
      skipTables: [
        ...Object.values(physical.tables).map(({ name }) => `${physical.schema}.${name}`),
        'gatehouse.audit_event',
      ],
    },
  });
}

/** For MikroORM's own command line. */
export default async function cliOptions(): Promise<Options> {
  const environment = readEnvironment();
  const url = environment.directUrl;
  const physical = await withConnection(url, (client) => inspectWith(client, environment));
  requireUsable(physical);
  return ormOptions({ url, poolMax: 2, physical });
}
