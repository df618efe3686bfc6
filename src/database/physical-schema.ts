/**
 * Better-Auth's tables as they really are in this database. Its three generators write them in three
 * ways (camelCase or snake_case, plural or not, text, uuid or integer ids, timestamps with or without
 * a zone), so Gatehouse looks before it maps.
 */
export interface PhysicalSchema {
  /** The PostgreSQL schema that the tables are in. */
  schema: string;
  tables: Partial<Record<TableName, PhysicalTable>>;
  /** Every schema of the database but PostgreSQL's own. */
  schemas: string[];
  /** Where they are instead, when nobody said which schema to look in and this one has none of them. */
  elsewhere: string[];
  /** Why Gatehouse could not run on this database; empty when it can. */
  errors: string[];
  /** What a person may want to know, but nothing waits for. */
  warnings: string[];
}

/** `@Inject(PHYSICAL_SCHEMA)`: the schema that Gatehouse found when it started. */
export const PHYSICAL_SCHEMA = Symbol('PHYSICAL_SCHEMA');

export interface PhysicalTable {
  name: string;
  columns: Record<string, PhysicalColumn>;
}

export interface PhysicalColumn {
  name: string;
  /** As PostgreSQL's `format_type` has it: `text`, `uuid`, `timestamp with time zone`, … */
  type: string;
}

export interface InspectionOptions {
  /** The schema to look in; the first of the connection's search_path, but for our own, when undefined. */
  schema: string | undefined;
  columns: 'auto' | 'camel' | 'snake';
  /** False where sessions live outside PostgreSQL (`SESSION_BINDING=token-only`). */
  requireSessions: boolean;
}

/** What is needed of a database connection here, so that migrations, the doctor and the start can share it. */
export type Query = (sql: string) => Promise<object[]>;

type Kind = 'id' | 'text' | 'time' | 'flag';
export const TABLE_NAMES = ['user', 'session', 'account', 'verification'] as const;
export type TableName = (typeof TABLE_NAMES)[number];

/** The properties that Gatehouse reads or writes, and what kind of column each must be. */
export const EXPECTED = {
  user: {
    id: 'id',
    name: 'text',
    email: 'text',
    emailVerified: 'flag',
    image: 'text',
    createdAt: 'time',
    updatedAt: 'time',
    role: 'text',
    banned: 'flag',
    banReason: 'text',
    banExpires: 'time',
  },
  session: {
    id: 'id',
    userId: 'id',
    expiresAt: 'time',
    token: 'text',
    createdAt: 'time',
    updatedAt: 'time',
    ipAddress: 'text',
    userAgent: 'text',
    impersonatedBy: 'text',
  },
  account: {
    id: 'id',
    userId: 'id',
    accountId: 'text',
    providerId: 'text',
    scope: 'text',
    createdAt: 'time',
    updatedAt: 'time',
  },
  verification: {
    id: 'id',
    identifier: 'text',
    value: 'text',
    expiresAt: 'time',
    createdAt: 'time',
    updatedAt: 'time',
  },
} as const satisfies Record<TableName, Record<string, Kind>>;

/** Columns that Better-Auth's admin plugin adds: missing ones have their own remedy. */
const ADMIN_PLUGIN_COLUMNS = new Set([
  'role',
  'banned',
  'banReason',
  'banExpires',
  'impersonatedBy',
]);

const INCOMPLETE_MIGRATION_HINT = "Finish Better-Auth's own migration first.";

const FINISH_OR_TOKEN_ONLY =
  "Finish Better-Auth's own migration first. If it has secondaryStorage, set session.storeSessionInDatabase there, or SESSION_BINDING=token-only here (docs/better-auth.md).";

const ALLOWED_TYPES: Record<Kind, RegExp> = {
  id: /^(text|uuid|integer|bigint|character varying.*)$/,
  text: /^(text|character varying.*)$/,
  time: /^timestamp(\(\d\))? with(out)? time zone$/,
  flag: /^boolean$/,
};

export async function inspectDatabase(
  query: Query,
  wish: InspectionOptions,
): Promise<PhysicalSchema> {
  const [first] = (await query(DEFAULT_SCHEMA)) as { schema: string }[];
  const schema = wish.schema ?? first?.schema ?? 'public';
  const schemas = ((await query(SCHEMAS)) as { schema: string }[]).map((row) => row.schema);
  const columns = (await query(columnsQuery(schema))) as ColumnRow[];
  const found = { ...describeColumns(columns, schema, wish), schemas };
  if (wish.schema !== undefined || Object.keys(found.tables).length > 0) return found;
  const others = (await query(BETTER_AUTH_SCHEMAS_QUERY)) as { schema: string }[];
  if (others.length === 0) return found;
  const elsewhere = others.map((other) => other.schema);
  const names = elsewhere.map((name) => `"${name}"`).join(' and ');
  const fault = `None of Better-Auth's tables is in schema "${schema}", but there are some in ${names}. Set DATABASE_SCHEMA.`;
  return { ...found, elsewhere, errors: [fault] };
}

interface ColumnRow {
  table: string;
  column: string;
  type: string;
  required: boolean;
}

/** The judgement over what the catalogue says, without a database of its own. */
function describeColumns(
  rows: ColumnRow[],
  schema: string,
  wish: InspectionOptions,
): PhysicalSchema {
  const found: PhysicalSchema = {
    schema,
    tables: {},
    schemas: [],
    elsewhere: [],
    errors: [],
    warnings: [],
  };
  const ofAdmin = TABLE_NAMES.flatMap((table) => describeTable(table, rows, wish, found));
  if (ofAdmin.length > 0) {
    found.errors.push(
      `Columns of Better-Auth's admin plugin are missing: ${ofAdmin.join(', ')}. Add the plugin to Better-Auth and run its migration.`,
    );
  }

  const present = TABLE_NAMES.filter((table) => found.tables[table]);
  const absent = TABLE_NAMES.filter((table) => !found.tables[table]);
  const needed = absent.filter((table) => isNeeded(table, wish));
  if (present.length === 0) {
    found.errors.push(
      `None of Better-Auth's tables is in schema "${found.schema}". Run the migrations (npm run migrate), or set DATABASE_SCHEMA.`,
    );
    return found;
  }
  if (needed.length > 0) {
    found.errors.push(
      `Only a part of Better-Auth's tables is in schema "${found.schema}": ${present.join(', ')}, but not ${needed.join(', ')}. ${needed.join() === 'session' ? FINISH_OR_TOKEN_ONLY : INCOMPLETE_MIGRATION_HINT}`,
    );
  }
  for (const table of absent.filter((name) => !needed.includes(name))) {
    const consequence =
      table === 'session'
        ? ' A ban, a role or a sign-out by Gatehouse does not reach Better-Auth there: docs/better-auth.md.'
        : '';
    found.warnings.push(
      `There is no table "${table}": Better-Auth keeps it elsewhere (secondary storage).${consequence}`,
    );
  }
  return found;
}

/** True when not one of Better-Auth's tables is there: a new database, in which we may create them. */
export function isNew({ tables, elsewhere }: PhysicalSchema): boolean {
  return Object.keys(tables).length === 0 && elsewhere.length === 0;
}

/**
 * Whether a text could be an id in this database at all. PostgreSQL answers a text that is no uuid or
 * no integer with an error, where the caller only wants to hear "there is no such row".
 */
export function canBeId(type: string, text: string): boolean {
  if (type === 'uuid') return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
  if (type === 'integer') return /^[1-9]\d{0,9}$/.test(text) && Number(text) <= 2_147_483_647;
  if (type === 'bigint') {
    return /^[1-9]\d{0,18}$/.test(text) && BigInt(text) <= 9_223_372_036_854_775_807n;
  }
  return text.length > 0 && text.length <= 255 && !text.includes('\0');
}

/** Finds the table and what is wrong with it; returns the columns of the admin plugin that it has not. */
function describeTable(
  table: TableName,
  rows: ColumnRow[],
  wish: InspectionOptions,
  found: PhysicalSchema,
): string[] {
  const candidates = [table, `${table}s`]
    .map((name) => ({ name, rows: rows.filter((row) => row.table === name) }))
    .filter((candidate) => candidate.rows.length > 0)
    .map((candidate) => ({ ...candidate, ...matchColumns(table, candidate.rows, wish.columns) }))
    // An application may well have a table `users` of its own beside Better-Auth's `user`.
    .toSorted((a, b) => a.faults.length + a.ofAdmin.length - b.faults.length - b.ofAdmin.length);
  const [best] = candidates;
  if (!best) return [];
  found.tables[table] = { name: best.name, columns: best.columns };

  const known = new Set(Object.values(best.columns).map((column) => column.name));
  const strangers = best.rows.filter((row) => row.required && !known.has(row.column));
  for (const { column } of strangers.filter((row) => !BETTER_AUTH_DEFAULTS.test(row.column))) {
    found.warnings.push(
      `${best.name}.${column} is required and has no default. Gatehouse never inserts there, but Better-Auth 1.7.3 and later refuse to serve when they do not know such a column.`,
    );
  }
  if (!isNeeded(table, wish)) return [];
  found.errors.push(...best.faults.map((fault) => `${best.name}: ${fault}`));
  return best.ofAdmin.map((property) => `${best.name}.${property}`);
}

/** Required columns that Gatehouse has no use for and Better-Auth fills. */
const BETTER_AUTH_DEFAULTS = /^(issuer|email_?verified)$/i;

function matchColumns(table: TableName, rows: ColumnRow[], style: InspectionOptions['columns']) {
  const byName = new Map(rows.map((row) => [row.column, row]));
  const columns: Record<string, PhysicalColumn> = {};
  const faults: string[] = [];
  const ofAdmin: string[] = [];
  for (const [property, kind] of Object.entries(EXPECTED[table])) {
    const names = new Set([
      ...(style === 'snake' ? [] : [property]),
      ...(style === 'camel' ? [] : [snakeCase(property)]),
    ]);
    const row = [...names].map((name) => byName.get(name)).find((column) => column !== undefined);
    if (!row) {
      if (ADMIN_PLUGIN_COLUMNS.has(property)) ofAdmin.push(property);
      else
        faults.push(`column ${[...names].join(' or ')} is missing. ${INCOMPLETE_MIGRATION_HINT}`);
      continue;
    }
    columns[property] = { name: row.column, type: row.type };
    if (!ALLOWED_TYPES[kind].test(row.type)) {
      faults.push(`column ${row.column} is of type ${row.type}, which Better-Auth never makes it.`);
    }
  }
  return { columns, faults, ofAdmin };
}

function isNeeded(table: TableName, wish: InspectionOptions): boolean {
  if (table === 'verification') return false;
  return table !== 'session' || wish.requireSessions;
}

export function snakeCase(property: string): string {
  return property.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A role called `gatehouse` has our own schema in its search_path as soon as there is one. */
const DEFAULT_SCHEMA = `
  select name as "schema"
  from unnest(current_schemas(false)) with ordinality as path (name, place)
  where name <> 'gatehouse'
  order by place limit 1`;

const SCHEMAS = `
  select nspname as "schema" from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema' order by nspname`;

/** Without parameters, because `pg` and MikroORM write those differently. */
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
 * Where we would make a second set of tables that nobody uses. By columns that Better-Auth's tables have
 * and those of an application hardly, and only where this role may go.
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
