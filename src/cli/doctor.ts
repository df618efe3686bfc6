import { parseArgs } from 'node:util';
import type { Client } from 'pg';
import { migrationNames } from '../../mikro-orm.config.js';
import { checkOnline, type OnlineFindings } from './check-online.js';
import { runProgram, UsageError } from './run-program.js';
import { oversizedUsers, rolesWithoutPermissions } from './user-rows.js';
import { type Environment, environmentNames, readEnvironment } from '../config/environment.js';
import { configurationWarnings } from '../config/warnings.js';
import { withConnection } from '../database/connection.js';
import { explainTriggers, type TriggerState, triggerState } from '../database/change-triggers.js';
import { inspectWith } from '../database/inspect.js';
import { pendingMigrations } from '../database/pending-migrations.js';
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
 * The token on standard input, if there is one. A program that starts the doctor may leave its
 * standard input open, so the doctor waits only for a limited time.
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
                   explains why Gatehouse refuses a token on standard input
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
