import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startPostgres, type Postgres } from '../../tools/postgres.ts';
import { WITHOUT_EXTENSIONS } from './built-program.ts';
import { type PgBouncer, startPgBouncer } from './pgbouncer.ts';

let postgres: Postgres;
let folder: string;
let bouncer: PgBouncer | undefined;

/** Starts one PostgreSQL for all tests, with a migrated template database. */
export default async function globalSetup(): Promise<void> {
  folder = mkdtempSync(join(tmpdir(), 'gatehouse-test-'));
  postgres = await startPostgres({
    dataDir: join(folder, 'postgres'),
    settings: {
      fsync: 'off',
      synchronous_commit: 'off',
      full_page_writes: 'off',
      max_connections: '200',
    },
  });
  await postgres.createDatabase('template_gatehouse');
  const { status, stderr } = spawnSync(
    process.execPath,
    [...WITHOUT_EXTENSIONS, 'dist/src/cli/migrate.js'],
    {
      env: {
        PATH: process.env['PATH'],
        NODE_ENV: 'test',
        DATABASE_URL: postgres.url('template_gatehouse'),
      },
      encoding: 'utf8',
    },
  );
  if (status !== 0) {
    await globalTeardown();
    throw new Error(`The template could not be migrated: ${stderr}`);
  }
  process.env['TEST_POSTGRES_URL'] = postgres.url('postgres');
  // With `TEST_PGBOUNCER=1` each test database is behind PgBouncer (`test/support/database.ts`).
  if (process.env['TEST_PGBOUNCER']) {
    const { username, password, port } = new URL(postgres.url('postgres'));
    bouncer = await startPgBouncer(join(folder, 'pgbouncer'), Number(port), username, password);
    process.env['TEST_PGBOUNCER_PORT'] = String(bouncer.port);
  }
}

export async function globalTeardown(): Promise<void> {
  await bouncer?.kill();
  await postgres.stop();
  rmSync(folder, { recursive: true, force: true });
}
