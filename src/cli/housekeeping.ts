import { parseArgs } from 'node:util';
import type { Client } from 'pg';
import { readEnvironment } from '../config/environment.js';
import { LOCKS } from '../database/advisory-locks.js';
import { withConnection } from '../database/connection.js';
import { inspectWith, requireUsable } from '../database/inspect.js';
import { createLogger, flush } from '../logging/logger.js';
import { deleteAuditEvents, deleteSessions, type Deletion } from './expired-rows.js';
import { runProgram, UsageError } from './run-program.js';

const USAGE = `Deletes old rows, in batches. Without one of the first two options, it deletes nothing.

  --sessions-older-than <days>   sessions that expired more than so many days ago (1 or more)
  --audit-older-than <days>      audit events (31 or more); needs the role that owns the tables
  --dry-run                      only counts these rows`;

interface Options {
  sessionDays: number | undefined;
  auditDays: number | undefined;
  isDryRun: boolean;
}

function readOptions(): Options {
  const { values } = parse();
  const sessionDays = daysIn(values['sessions-older-than'], 1);
  const auditDays = daysIn(values['audit-older-than'], MIN_AUDIT_DAYS);
  if (sessionDays === undefined && auditDays === undefined) throw new UsageError(USAGE);
  return { sessionDays, auditDays, isDryRun: values['dry-run'] };
}

function parse() {
  try {
    return parseArgs({
      options: {
        'sessions-older-than': { type: 'string' },
        'audit-older-than': { type: 'string' },
        'dry-run': { type: 'boolean', default: false },
      },
    });
  } catch {
    throw new UsageError(USAGE);
  }
}

function daysIn(text: string | undefined, min: number): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,5}$/.test(text) || Number(text) < min) throw new UsageError(USAGE);
  return Number(text);
}

/** A trigger refuses to delete events of the last 30 days. */
const MIN_AUDIT_DAYS = 31;

/**
 * Only one run works at a time, and a second one ends at once. Each batch is a transaction of its
 * own. After an interrupted run, the next one deletes the remaining rows.
 */
async function runLocked(
  client: Client,
  work: () => Promise<Record<string, unknown>>,
): Promise<Record<string, unknown>> {
  const { rows } = await client.query<{ taken: boolean }>(
    'select pg_try_advisory_lock($1) as taken',
    [LOCKS.housekeeping],
  );
  if (!rows[0]?.taken) return { skipped: 'another run is active' };
  try {
    return await work();
  } finally {
    // A pooler would keep the connection and its lock. After an error, a transaction may be open.
    await client.query(`rollback; select pg_advisory_unlock(${LOCKS.housekeeping})`);
  }
}

const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000);

/** Shows the progress on a terminal. Elsewhere it writes nothing, so the log gets one line. */
async function count(name: string, batches: AsyncIterable<number>): Promise<number> {
  let deleted = 0;
  for await (const size of batches) {
    deleted += size;
    if (process.stdout.isTTY) process.stdout.write(`\r${name}: ${deleted} deleted`);
  }
  if (process.stdout.isTTY) process.stdout.write('\n');
  return deleted;
}

// Undefined before Node 24.2. `runProgram` rejects such a version.
if (import.meta.main ?? true) {
  await runProgram(async () => {
    const { sessionDays, auditDays, isDryRun } = readOptions();
    const environment = readEnvironment();
    const log = createLogger(environment);
    await withConnection(environment.directUrl, async (client) => {
      const physical = await inspectWith(client, environment);
      requireUsable(physical);
      // The run fails if a row is locked for longer.
      await client.query(`set lock_timeout = '5s'`);
      const result = await runLocked(client, async () => {
        const run = (name: string, deletion: Deletion | undefined) =>
          isDryRun ? deletion?.count() : deletion && count(name, deletion.batches());
        const sessions =
          sessionDays === undefined
            ? undefined
            : deleteSessions(client, physical, daysAgo(sessionDays));
        const audit =
          auditDays === undefined ? undefined : deleteAuditEvents(client, daysAgo(auditDays));
        return {
          dryRun: isDryRun || undefined,
          sessions: await run('sessions', sessions),
          auditEvents: await run('audit events', audit),
        };
      });
      log.info({ event: 'housekeeping', ...result }, isDryRun ? 'would delete' : 'deleted');
    });
    await flush(log);
  });
}
