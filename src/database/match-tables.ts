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

/** Compares the columns of a schema with the expected ones. It is pure: it runs no query. */
export function describeColumns(
  rows: ColumnRow[],
  schema: string,
  options: InspectionOptions,
): PhysicalSchema {
  const found: PhysicalSchema = {
    schema,
    tables: {},
    schemas: [],
    elsewhere: [],
    errors: [],
    warnings: [],
  };
  const missingOfPlugin = TABLE_NAMES.flatMap((table) =>
    describeTable(table, rows, options, found),
  );
  if (missingOfPlugin.length > 0) {
    found.errors.push(
      `Columns of Better-Auth's admin plugin are missing: ${missingOfPlugin.join(', ')}. Add the plugin to Better-Auth and run its migration.`,
    );
  }

  const present = TABLE_NAMES.filter((table) => found.tables[table]);
  const absent = TABLE_NAMES.filter((table) => !found.tables[table]);
  const missing = absent.filter((table) => isNeeded(table, options));
  if (present.length === 0) {
    found.errors.push(
      `Schema "${found.schema}" has no Better-Auth tables. Run the migrations (npm run migrate), or set DATABASE_SCHEMA.`,
    );
    return found;
  }
  if (missing.length > 0) {
    found.errors.push(
      `Schema "${found.schema}" has only some of Better-Auth's tables: ${present.join(', ')}, but not ${missing.join(', ')}. ${missing.join() === 'session' ? FINISH_OR_TOKEN_ONLY : INCOMPLETE_MIGRATION_HINT}`,
    );
  }
  for (const table of absent.filter((name) => !missing.includes(name))) {
    const consequence =
      table === 'session'
        ? ' Bans, role changes and sign-outs by Gatehouse do not reach it: see docs/better-auth.md.'
        : '';
    found.warnings.push(
      `There is no table "${table}": Better-Auth keeps it in secondary storage.${consequence}`,
    );
  }
  return found;
}

/** Columns of Better-Auth's admin plugin. A missing one has its own error message. */
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

/** Adds a table and its errors to `found`. Returns the missing columns of the admin plugin. */
function describeTable(
  table: TableName,
  rows: ColumnRow[],
  options: InspectionOptions,
  found: PhysicalSchema,
): string[] {
  const candidates = [table, `${table}s`]
    .map((name) => ({ name, rows: rows.filter((row) => row.table === name) }))
    .filter((candidate) => candidate.rows.length > 0)
    .map((candidate) => ({ ...candidate, ...matchColumns(table, candidate.rows, options.columns) }))
    // An application may have its own table `users` beside Better-Auth's `user`.
    .toSorted((a, b) => countProblems(a) - countProblems(b));
  const [best] = candidates;
  if (!best) return [];
  found.tables[table] = { name: best.name, columns: best.columns };

  const mapped = new Set(Object.values(best.columns).map((column) => column.name));
  const unmapped = best.rows.filter((row) => row.required && !mapped.has(row.column));
  for (const { column } of unmapped.filter((row) => !FILLED_BY_BETTER_AUTH.test(row.column))) {
    found.warnings.push(
      `${best.name}.${column} is required and has no default. Gatehouse never inserts there. Better-Auth 1.7.3 and later refuse to start if the column is not in their schema.`,
    );
  }
  if (!isNeeded(table, options)) return [];
  found.errors.push(...best.errors.map((error) => `${best.name}: ${error}`));
  return best.missingOfPlugin.map((property) => `${best.name}.${property}`);
}

interface ColumnProblems {
  errors: string[];
  missingOfPlugin: string[];
}

function countProblems({ errors, missingOfPlugin }: ColumnProblems): number {
  return errors.length + missingOfPlugin.length;
}

/** Required columns that Gatehouse does not read. Better-Auth fills them. */
const FILLED_BY_BETTER_AUTH = /^(issuer|email_?verified)$/i;

function matchColumns(table: TableName, rows: ColumnRow[], style: InspectionOptions['columns']) {
  const byName = new Map(rows.map((row) => [row.column, row]));
  const columns: Record<string, PhysicalColumn> = {};
  const errors: string[] = [];
  const missingOfPlugin: string[] = [];
  for (const [property, kind] of Object.entries(EXPECTED[table])) {
    const names = new Set([
      ...(style === 'snake' ? [] : [property]),
      ...(style === 'camel' ? [] : [snakeCase(property)]),
    ]);
    const row = [...names].map((name) => byName.get(name)).find((column) => column !== undefined);
    if (!row) {
      if (ADMIN_PLUGIN_COLUMNS.has(property)) missingOfPlugin.push(property);
      else
        errors.push(`column ${[...names].join(' or ')} is missing. ${INCOMPLETE_MIGRATION_HINT}`);
      continue;
    }
    columns[property] = { name: row.column, type: row.type };
    if (!ALLOWED_TYPES[kind].test(row.type)) {
      errors.push(`column ${row.column} is of type ${row.type}, which Better-Auth never creates.`);
    }
  }
  return { columns, errors, missingOfPlugin };
}

function isNeeded(table: TableName, options: InspectionOptions): boolean {
  if (table === 'verification') return false;
  return table !== 'session' || options.requireSessions;
}
