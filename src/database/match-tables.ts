import {
  EXPECTED,
  type InspectionOptions,
  type Kind,
  type PhysicalColumn,
  type PhysicalSchema,
  snakeCase,
  TABLE_NAMES,
  type TableName,
} from './physical-schema.js';

export interface ColumnRow {
  table: string;
  column: string;
  type: string;
  required: boolean;
}

/** The judgement over what the catalogue says, without a database of its own. */
export function describeColumns(
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
