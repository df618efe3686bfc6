import type { Client } from 'pg';
import type { Environment } from '../config/environment.js';
import { UnusableDatabaseError } from './connection.js';
import { type ColumnRow, describeColumns } from './match-tables.js';
import {
  type InspectionOptions,
  isNew,
  type PhysicalSchema,
  type Query,
  TABLE_NAMES,
} from './physical-schema.js';

/** Inspects the database as the environment specifies: for the start, migrations and the doctor. */
export function inspectWith(client: Client, environment: Environment): Promise<PhysicalSchema> {
  return inspectDatabase(async (sql) => (await client.query<object>(sql)).rows, {
    schema: environment.DATABASE_SCHEMA,
    columns: environment.DATABASE_COLUMNS,
    requireSessions: environment.SESSION_BINDING !== 'token-only',
  });
}

/** Rejects a database whose Better-Auth tables have errors. Migrations can fill a new one. */
export function requireUsable(physical: PhysicalSchema): void {
  if (physical.errors.length === 0 || isNew(physical)) return;
  throw new UnusableDatabaseError(physical.errors.join('\n'));
}

export async function inspectDatabase(
  query: Query,
  options: InspectionOptions,
): Promise<PhysicalSchema> {
  const [searchPath] = (await query(DEFAULT_SCHEMA)) as { schema: string }[];
  const schema = options.schema ?? searchPath?.schema ?? 'public';
  const schemas = ((await query(SCHEMAS)) as { schema: string }[]).map((row) => row.schema);
  const columns = (await query(columnsQuery(schema))) as ColumnRow[];
  const found = { ...describeColumns(columns, schema, options), schemas };
  if (options.schema !== undefined || Object.keys(found.tables).length > 0) return found;
  const others = (await query(BETTER_AUTH_SCHEMAS_QUERY)) as { schema: string }[];
  if (others.length === 0) return found;
  const elsewhere = others.map((other) => other.schema);
  const names = elsewhere.map((name) => `"${name}"`).join(' and ');
  const error = `Schema "${schema}" has no Better-Auth tables, but ${names} does. Set DATABASE_SCHEMA.`;
  return { ...found, elsewhere, errors: [error] };
}

/** Skips schema `gatehouse`: it is in the search_path of a role with that name. */
const DEFAULT_SCHEMA = `
  select name as "schema"
  from unnest(current_schemas(false)) with ordinality as path (name, place)
  where name <> 'gatehouse'
  order by place limit 1`;

const SCHEMAS = `
  select nspname as "schema" from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema' order by nspname`;

/** Has no parameters, because `pg` and MikroORM write them differently. */
function columnsQuery(schema: string): string {
  const names = TABLE_NAMES.flatMap((table) => [table, `${table}s`]);
  return `
    select c.relname as "table", a.attname as "column",
      format_type(a.atttypid, a.atttypmod) as "type",
      (a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '') as "required"
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where n.nspname = ${literal(schema)}
      and c.relname in (${names.map(literal).join(', ')}) and c.relkind in ('r', 'p')
    order by c.relname, a.attnum`;
}

/**
 * Schemas that seem to hold Better-Auth's tables, so that migrations do not create unused ones. The
 * query looks for columns that other applications rarely have, in schemas that this role may use.
 */
const BETTER_AUTH_SCHEMAS_QUERY = `
  select n.nspname as "schema"
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and has_schema_privilege(n.oid, 'usage')
  group by n.nspname
  having bool_or(c.relname in ('user', 'users') and a.attname in ('emailVerified', 'email_verified'))
    and bool_or(c.relname in ('account', 'accounts') and a.attname in ('providerId', 'provider_id'))
  order by n.nspname`;

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
