import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startPostgres, type Postgres } from '../dev/postgres.ts';

let postgres: Postgres;
let folder: string;

/** One PostgreSQL for the whole run, with a migrated database that each test file gets a copy of. */
export default async function startCluster(): Promise<void> {
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
  const { status, stderr } = spawnSync(process.execPath, ['dist/src/database/migrate.js'], {
    env: { ...process.env, DATABASE_URL: postgres.url('template_gatehouse') },
    encoding: 'utf8',
  });
  if (status !== 0) {
    await stopCluster();
    throw new Error(`The template could not be migrated: ${stderr}`);
  }
  process.env['TEST_POSTGRES_URL'] = postgres.url('postgres');
}

export async function stopCluster(): Promise<void> {
  await postgres.stop();
  rmSync(folder, { recursive: true, force: true });
}
