import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { bypassPooler } from '../../tools/bypass-pooler.ts';

export interface TestDatabase {
  /** Under `TEST_PGBOUNCER=1` through PgBouncer, as a deployment would have it. */
  url: string;
  /** The same, and never through a pooler. */
  directUrl: string;
  /** SQL by hand, as somebody beside Gatehouse and Better-Auth would run it. */
  sql<Row extends object = Record<string, unknown>>(
    text: string,
    values?: unknown[],
  ): Promise<Row[]>;
  drop(): Promise<void>;
}

/** A database of its own: a copy of the migrated template, or an empty one. */
export async function createDatabase({ empty = false } = {}): Promise<TestDatabase> {
  const name = `t_${randomBytes(6).toString('hex')}`;
  await onServer(`create database ${name} template ${empty ? 'template0' : 'template_gatehouse'}`);
  const url = new URL(serverUrl());
  url.pathname = `/${name}`;
  const client = new Client({ connectionString: url.href });
  client.on('error', () => undefined);
  await client.connect();
  return {
    url: throughPooler(url),
    directUrl: url.href,
    sql: async <Row extends object>(text: string, values?: unknown[]) =>
      (await client.query<Row>(text, values)).rows,
    drop: async () => {
      await client.end();
      await onServer(`drop database if exists ${name} with (force)`);
    },
  };
}

/** What a deployment behind a pooler sets, too. */
export function withDirectUrl(variables: Record<string, string>): Record<string, string> {
  const { DATABASE_URL: pooled = '' } = variables;
  const direct = bypassPooler(pooled);
  return direct === pooled ? variables : { DATABASE_DIRECT_URL: direct, ...variables };
}

function throughPooler(direct: URL): string {
  const url = new URL(direct);
  url.port = process.env['TEST_PGBOUNCER_PORT'] ?? url.port;
  return url.href;
}

function serverUrl(): string {
  const url = process.env['TEST_POSTGRES_URL'];
  if (!url) throw new Error('Run the tests with npm test: it starts their PostgreSQL.');
  return url;
}

async function onServer(sql: string): Promise<void> {
  const client = new Client({ connectionString: serverUrl() });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}
