import { parseArgs } from 'node:util';
import type { Client } from 'pg';
import { migrationNames } from '../../mikro-orm.config.js';
import { checkOnline, type OnlineFindings } from './check-online.js';
import { runProgram, UsageError } from './run-program.js';
import { type Environment, environmentNames, readEnvironment } from '../config/environment.js';
import { configurationWarnings } from '../config/warnings.js';
import { withConnection } from '../database/connection.js';
import { explainTriggers, type TriggerState, triggerState } from '../database/change-triggers.js';
import { inspectWith } from '../database/inspect.js';
import { pendingMigrations } from '../database/pending-migrations.js';
import { MAX_CHARACTERS } from '../database/bounded-text.js';
import { EXPECTED, type PhysicalSchema, TABLE_NAMES } from '../database/physical-schema.js';
import { databaseWarnings } from '../database/warnings.js';

interface Diagnosis {
  report: string;
  healthy: boolean;
}

interface Options {
  isOnline: boolean;
  replicas: number;
}

/** Compares the database with what Gatehouse expects, and reports how to fix each difference. */
function diagnose(environment: Environment, options: Options): Promise<Diagnosis> {
  return withConnection(environment.directUrl, async (client) => {
    const physical = await inspectWith(client, environment);
    const pending = await pendingMigrations(migrationNames(), (sql) =>
      client.query(sql).then(({ rows }) => rows),
    );
    const advice = [
      ...physical.errors,
      ...(pending.length > 0 && physical.errors.length === 0
        ? [
            `${pending.length} of ${migrationNames().length} migrations are pending. Run: npm run migrate`,
          ]
        : []),
    ];
    const uncached =
      environment.CHANGE_FEED && advice.length === 0
        ? await whyUncached(client, physical)
        : undefined;
    const configured = [
      ...configurationWarnings(environment, environmentNames()),
      ...(await databaseWarnings(client, environment, physical)),
    ];
    const warnings = [
      ...configured.map(({ message }) => message),
      ...physical.warnings,
      ...(uncached === undefined ? [] : [uncached]),
      ...(await oversizedUsers(client, physical)),
      ...(await rolesWithoutPermissions(client, physical, environment)),
    ];
    const isUsable = advice.length === 0;
    const online =
      options.isOnline && isUsable
        ? await checkOnline({ environment, physical, client, token: await readToken(), ...options })
        : NOTHING_FOUND;
    const faults = [...advice, ...online.faults];
    const report = [
      `PostgreSQL ${await serverVersion(client)}, schema "${physical.schema}"`,
      '',
      ...tables(physical),
      '',
      ...tokens(environment),
      ...online.facts,
      '',
      ...faults.map((line) => `FAULT   ${line}`),
      ...[...warnings, ...online.warnings].map((line) => `warning ${line}`),
      isUsable
        ? 'Gatehouse can run on this database.'
        : 'Gatehouse cannot run on this database yet.',
    ];
    return { report: report.join('\n'), healthy: faults.length === 0 };
  });
}

const NOTHING_FOUND: OnlineFindings = { facts: [], faults: [], warnings: [] };

/**
 * The token on standard input, if there is one. A program that starts the doctor can leave its own
 * input open, so the doctor does not wait for its end for ever.
 */
async function readToken(): Promise<string | undefined> {
  if (process.stdin.isTTY) return undefined;
  const timeout = setTimeout(() => process.stdin.destroy(), INPUT_TIMEOUT_MS);
  let text = '';
  try {
    for await (const chunk of process.stdin.setEncoding('utf8')) {
      text += String(chunk);
      if (text.length > MAX_INPUT_LENGTH) break;
    }
  } catch {
    // The timeout destroyed the stream.
  }
  clearTimeout(timeout);
  const token = text.trim().replace(/^bearer +/i, '');
  return token === '' ? undefined : token;
}

const INPUT_TIMEOUT_MS = 5000;
const MAX_INPUT_LENGTH = 65_536;

/**
 * Better-Auth reads such texts whole and puts them into each token. PostgreSQL returns their length
 * without reading them. The check still visits every row, so it has a timeout for large tables.
 */
async function oversizedUsers(
  client: Client,
  { schema, tables }: PhysicalSchema,
): Promise<string[]> {
  const { name, image } = tables.user?.columns ?? {};
  if (!name || !image) return [];
  const [names, images] = [name, image].map((column) => `octet_length("${column.name}")`);
  const rows = await readQuickly<{ users: number; largest: number }>(
    client,
    `select count(*)::int as users, max(size)::float8 as largest from (
       select coalesce(${names}, 0)::bigint + coalesce(${images}, 0) as size
       from "${schema}"."${tables.user?.name}"
     ) sizes where size > ${MAX_PROFILE_BYTES}`,
  );
  if (!rows)
    return ['Skipped the check for oversized names and pictures: the user table is too large.'];
  const { users = 0, largest = 0 } = rows[0] ?? {};
  if (users === 0) return [];
  return [
    `The name and the picture of ${users} users have more than ${MAX_PROFILE_BYTES} bytes (the largest: ${largest}). Gatehouse shows ${MAX_CHARACTERS.name} and ${MAX_CHARACTERS.image} characters of them, and rejects tokens of more than 8 KB. Store pictures elsewhere, and only their URL here.`,
  ];
}

/** Roles are defined in the code of the auth server, so the file can lack one that is in use. */
async function rolesWithoutPermissions(
  client: Client,
  { schema, tables }: PhysicalSchema,
  { permissions }: Environment,
): Promise<string[]> {
  const column = tables.user?.columns['role'];
  if (!permissions || !column) return [];
  const rows = await readQuickly<{ role: string; users: number }>(
    client,
    `select role, count(*)::int as users
     from (select unnest(string_to_array("${column.name}", ',')) as role
           from "${schema}"."${tables.user?.name}") roles
     group by role order by role`,
  );
  if (!rows) {
    return ['Skipped the check for roles without permissions: the user table is too large.'];
  }
  return rows
    .filter(({ role }) => role !== DEFAULT_ROLE && !permissions.has(role))
    .slice(0, MAX_LISTED_ROLES)
    .map(({ role, users }) => {
      const name = JSON.stringify(role.slice(0, 100));
      return `PERMISSIONS_FILE lacks the role ${name}, which ${users} users have. It allows them nothing.`;
    });
}

/** Every new user has this role, and it needs no permissions. */
const DEFAULT_ROLE = 'user';
const MAX_LISTED_ROLES = 100;

/** Returns undefined if the query takes too long. */
async function readQuickly<Row extends object>(
  client: Client,
  sql: string,
): Promise<Row[] | undefined> {
  try {
    await client.query('begin read only');
    await client.query(`set local statement_timeout = ${CHECK_TIMEOUT_MS}`);
    return (await client.query<Row>(sql)).rows;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === QUERY_CANCELED)) throw error;
    return undefined;
  } finally {
    await client.query('rollback');
  }
}

const CHECK_TIMEOUT_MS = 5000;
const MAX_PROFILE_BYTES = 4096;
const QUERY_CANCELED = '57014';

/** Why Gatehouse cannot use the change feed on this server, if it cannot. */
async function whyUncached(client: Client, physical: PhysicalSchema): Promise<string | undefined> {
  const { rows } = await client.query<TriggerState>(triggerState(physical));
  const reason = explainTriggers(rows[0]);
  return reason && `The change feed cannot be used, so the cache is disabled: ${reason}.`;
}

async function serverVersion(client: Client): Promise<string> {
  const { rows } = await client.query<{ server_version: string }>('show server_version');
  return rows[0]?.server_version ?? 'of unknown version';
}

/** The doctor sees no tokens. If tokens differ, the log of the first requests has the `reason`. */
function tokens({ issuer, audiences, jwksUrl, JWT_SESSION_CLAIM }: Environment): string[] {
  return [
    `tokens  iss "${issuer}", aud ${audiences.map((name) => `"${name}"`).join(' or ')}, session claim "${JWT_SESSION_CLAIM}"`,
    `keys    ${jwksUrl}`,
  ];
}

/** One line for each property: its column and type. */
function tables(physical: PhysicalSchema): string[] {
  const rows = TABLE_NAMES.flatMap((table) => {
    const found = physical.tables[table];
    return Object.keys(EXPECTED[table]).map((property) => {
      const column = found?.columns[property];
      return [
        `${table}.${property}`,
        column ? `${found.name}.${column.name}` : 'missing',
        column?.type ?? '',
      ];
    });
  });
  const lines = [['expected', 'found', 'type'], ...rows];
  const widths = [0, 1].map((index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)));
  return lines.map(([expected = '', found = '', type = '']) =>
    `${expected.padEnd(widths[0] ?? 0)}  ${found.padEnd(widths[1] ?? 0)}  ${type}`.trimEnd(),
  );
}

const USAGE = `Checks the database and the configuration.

  --online         also checks the issuer, TLS, the clocks, the connections and the change feed, and
                   says why a token on standard input is refused
  --replicas <n>   how many replicas share the database (1)`;

function readOptions(): Options {
  try {
    const { values } = parseArgs({
      options: {
        online: { type: 'boolean', default: false },
        replicas: { type: 'string', default: '1' },
      },
    });
    if (!/^[1-9]\d{0,3}$/.test(values.replicas)) throw new UsageError(USAGE);
    return { isOnline: values.online, replicas: Number(values.replicas) };
  } catch {
    throw new UsageError(USAGE);
  }
}

// Undefined before Node 24.2. `runProgram` rejects such a version.
if (import.meta.main ?? true) {
  await runProgram(async () => {
    const { report, healthy } = await diagnose(readEnvironment(), readOptions());
    process.stdout.write(`${report}\n`);
    if (!healthy) process.exitCode = 1;
  });
}
