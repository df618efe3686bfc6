import type { Client } from 'pg';
import { MIGRATIONS } from '../../mikro-orm.config.js';
import { runProgram } from '../common/program.js';
import { type Environment, readEnvironment } from '../config/environment.js';
import { withConnection } from './connection.js';
import { inspectWith } from './inspect.js';
import { pendingMigrations } from './pending-migrations.js';
import { EXPECTED, type PhysicalSchema, TABLE_NAMES } from './physical-schema.js';

interface Diagnosis {
  report: string;
  healthy: boolean;
}

/** What is in the database, what Gatehouse expects there, and what to do about the difference. */
function diagnose(environment: Environment): Promise<Diagnosis> {
  return withConnection(environment.directUrl, async (client) => {
    const physical = await inspectWith(client, environment);
    const pending = await pendingMigrations((sql) => client.query(sql).then(({ rows }) => rows));
    const advice = [
      ...physical.faults,
      ...(pending.length > 0 && physical.faults.length === 0
        ? [`${pending.length} of ${MIGRATIONS.length} migrations are pending. Run: npm run migrate`]
        : []),
    ];
    const report = [
      `PostgreSQL ${await serverVersion(client)}, schema "${physical.schema}"`,
      '',
      ...tables(physical),
      '',
      ...tokens(environment),
      '',
      ...advice.map((line) => `FAULT   ${line}`),
      ...physical.remarks.map((line) => `remark  ${line}`),
      advice.length === 0
        ? 'Gatehouse can run on this database.'
        : 'Gatehouse cannot run on this database yet.',
    ];
    return { report: report.join('\n'), healthy: advice.length === 0 };
  });
}

async function serverVersion(client: Client): Promise<string> {
  const { rows } = await client.query<{ server_version: string }>('show server_version');
  return rows[0]?.server_version ?? 'of unknown version';
}

/** Not asked for: whether they come so, the log of the first requests says (`reason`). */
function tokens({ issuer, audiences, jwksUrl, JWT_SESSION_CLAIM }: Environment): string[] {
  return [
    `tokens  iss "${issuer}", aud ${audiences.map((name) => `"${name}"`).join(' or ')}, session claim "${JWT_SESSION_CLAIM}"`,
    `keys    ${jwksUrl}`,
  ];
}

/** One line for each property: where it was found, and as what. */
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

// Node before 24.2 does not know; `runProgram` tells it apart.
if (import.meta.main ?? true) {
  await runProgram(async () => {
    const { report, healthy } = await diagnose(readEnvironment());
    process.stdout.write(`${report}\n`);
    if (!healthy) process.exitCode = 1;
  });
}
