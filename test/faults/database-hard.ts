import type { Client } from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault.ts';
import { only, statusesOf } from './load.ts';
import type { FaultContext } from './fault-context.ts';
import { SERVICE_ROLE } from './system.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

let proxy: TcpProxy;
let locker: Client;

/** Starts a service that connects to its database through a proxy. */
async function startBehindProxy(context: FaultContext, variables: Record<string, string> = {}) {
  proxy = await startTcpProxy(() => context.system.port);
  context.onClose(() => proxy.close());
  const url = context.system.url(proxy.port);
  await context.serve({ DATABASE_URL: url, ...variables });
}

export const reset: Fault = {
  name: 'database connections reset repeatedly',
  seconds: 0,
  start: startBehindProxy,
  inject: async (context) => {
    const before = proxy.opened;
    for (let time = 0; time < 15; time += 1) {
      proxy.resetAll();
      await sleep(200);
    }
    context.expect(proxy.opened > before, 'connections are opened again');
  },
  restore: () => undefined,
};

export const poolUsedUp: Fault = {
  name: 'pool used up (2 connections, 150 ms to the database)',
  seconds: 4,
  start: (context) => startBehindProxy(context, { DATABASE_POOL_MAX: '2' }),
  inject: () => {
    proxy.delayMs = 150;
  },
  expect: (context) => {
    const refused = context.load.tally.statuses.get(503) ?? 0;
    context.expect(refused > 0, 'the pool is used up');
    // Beside the pool: the health check, the change feed, and its check through a new connection.
    context.expect(proxy.open <= 5, `no more connections than allowed: ${proxy.open}`);
  },
  restore: () => {
    proxy.delayMs = 0;
  },
};

export const noConnections: Fault = {
  name: 'PostgreSQL has no free connection (53300)',
  seconds: 3,
  start: (context) => context.serve(),
  inject: async ({ system }) => {
    await system.sql(`alter role ${SERVICE_ROLE} connection limit 0`);
    await system.endConnectionsOfService();
  },
  restore: ({ system }) => system.sql(`alter role ${SERVICE_ROLE} connection limit -1`),
};

export const locked: Fault = {
  name: 'lock on "user" by another connection (ACCESS EXCLUSIVE)',
  seconds: 5,
  start: (context) => context.serve(),
  inject: async ({ system }) => {
    locker = await system.connect();
    await locker.query('begin; lock table "user" in access exclusive mode');
  },
  expect: async (context) => {
    // Service and server cancel queries at the timeout, so no query waits longer.
    const [longest] = await context.system.sql<{ s: number }>(
      `select coalesce(max(extract(epoch from now() - query_start)), 0)::float as s
       from pg_stat_activity where wait_event_type = 'Lock' and usename = '${SERVICE_ROLE}'`,
    );
    const waited = longest?.s ?? 0;
    context.note(`the longest wait for the lock in PostgreSQL: ${waited.toFixed(1)} s`);
    context.expect(waited < 4, `no query is left waiting: ${waited.toFixed(1)} s`);
  },
  restore: async () => {
    await locker.query('rollback');
    await locker.end();
  },
};

export const auditLocked: Fault = {
  name: 'lock on the audit log by another connection',
  seconds: 4,
  start: (context) => context.serve(),
  inject: async (context) => {
    locker = await context.system.connect();
    await locker.query('begin; lock table gatehouse.audit_event in access exclusive mode');
    await sleep(2500);
    context.takeTallies();
  },
  expect: (context) => {
    const { load, ledger } = context;
    context.expect(only(load.tally, [200]), `reads are answered: ${statusesOf(load.tally)}`);
    context.expect(only(ledger.tally, [503]), `writes are not: ${statusesOf(ledger.tally)}`);
  },
  restore: async () => {
    await locker.query('rollback');
    await locker.end();
  },
};

export const readOnly: Fault = {
  name: 'PostgreSQL is read-only (default_transaction_read_only)',
  seconds: 3,
  start: (context) => context.serve(),
  inject: async (context) => {
    await context.system.sql('alter system set default_transaction_read_only = on');
    await context.system.sql('select pg_reload_conf()');
    // Writes that began before the change have 2.2 s to complete.
    await sleep(2500);
    context.takeTallies();
  },
  expect: (context) => {
    const { load, ledger } = context;
    context.expect(only(load.tally, [200]), `reads are answered: ${statusesOf(load.tally)}`);
    context.expect(only(ledger.tally, [503]), `writes are not: ${statusesOf(ledger.tally)}`);
    context.expect(ledger.tally.requests > 0, 'writes were tried');
  },
  restore: async ({ system }) => {
    await system.sql('alter system reset default_transaction_read_only');
    await system.sql('select pg_reload_conf()');
    await sleep(200);
  },
};
