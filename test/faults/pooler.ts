import { join } from 'node:path';
import { missingProgram } from '../support/external-program.ts';
import type { Fault } from './fault.ts';
import { type PgBouncer, startPgBouncer } from '../support/pgbouncer.ts';
import type { FaultContext } from './fault-context.ts';
import { SERVICE_ROLE } from './system.ts';

let bouncer: PgBouncer;

async function startBehindPgBouncer(context: FaultContext): Promise<void> {
  const { folder, port } = context.system;
  bouncer = await startPgBouncer(join(folder, 'pgbouncer'), port, SERVICE_ROLE, SERVICE_ROLE);
  context.onClose(() => bouncer.kill());
  await context.serve({ DATABASE_URL: context.system.url(bouncer.port) });
}

export const poolerKilled: Fault = {
  name: 'PgBouncer in transaction mode, PostgreSQL behind it killed',
  impossible: () => missingProgram('pgbouncer'),
  seconds: 4,
  start: startBehindPgBouncer,
  inject: ({ system }) => system.killPostgres(),
  restore: async ({ system }) => {
    await system.startPostgres();
    await system.untilPostgresAnswers();
  },
};

export const poolerFrozen: Fault = {
  name: 'PgBouncer in transaction mode, PostgreSQL behind it stopped',
  impossible: () => missingProgram('pgbouncer'),
  seconds: 4,
  start: startBehindPgBouncer,
  inject: ({ system }) => system.freezePostgres(),
  restore: async ({ system }) => {
    system.thawPostgres();
    await system.untilPostgresAnswers();
  },
};
