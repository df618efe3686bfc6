import type { Client } from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault.ts';
import { only, statusesOf } from './load.ts';
import type { Stage } from './stage.ts';
import { SERVICE_ROLE } from './system.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

let proxy: TcpProxy;
let locker: Client;

/** A service whose way to its database leads through a proxy of ours. */
async function startBehindProxy(stage: Stage, variables: Record<string, string> = {}) {
  proxy = await startTcpProxy(() => stage.system.port);
  stage.onClose(() => proxy.close());
  const url = stage.system.url(proxy.port);
  await stage.serve({ DATABASE_URL: url, DATABASE_DIRECT_URL: stage.system.url(), ...variables });
}

export const reset: Fault = {
  name: 'database connections reset, again and again',
  seconds: 0,
  start: startBehindProxy,
  inject: async (stage) => {
    const before = proxy.opened;
    for (let time = 0; time < 15; time += 1) {
      proxy.resetAll();
      await sleep(200);
    }
    stage.expect(proxy.opened > before, 'connections are opened anew');
  },
  restore: () => undefined,
};

export const poolUsedUp: Fault = {
  name: 'pool used up (2 connections, 150 ms to the database)',
  seconds: 4,
  start: (stage) => startBehindProxy(stage, { DATABASE_POOL_MAX: '2' }),
  inject: () => {
    proxy.delayMs = 150;
  },
  expect: (stage) => {
    const refused = stage.load.tally.statuses.get(503) ?? 0;
    stage.expect(refused > 0, 'the pool is used up, or this shows nothing');
    stage.expect(proxy.open <= 3, `no more connections than allowed: ${proxy.open}`);
  },
  restore: () => {
    proxy.delayMs = 0;
  },
};

export const noConnections: Fault = {
  name: 'PostgreSQL has no connection to give (53300)',
  seconds: 3,
  start: (stage) => stage.serve(),
  inject: async ({ system }) => {
    await system.sql(`alter role ${SERVICE_ROLE} connection limit 0`);
    await system.endConnectionsOfService();
  },
  restore: ({ system }) => system.sql(`alter role ${SERVICE_ROLE} connection limit -1`),
};

export const locked: Fault = {
  name: 'somebody holds a lock on "user" (ACCESS EXCLUSIVE)',
  seconds: 5,
  start: (stage) => stage.serve(),
  inject: async ({ system }) => {
    locker = await system.connect();
    await locker.query('begin; lock table "user" in access exclusive mode');
  },
  expect: async (stage) => {
    // Given up on both sides: what waits now began within the time that a query has.
    const [longest] = await stage.system.sql<{ s: number }>(
      `select coalesce(max(extract(epoch from now() - query_start)), 0)::float as s
       from pg_stat_activity where wait_event_type = 'Lock' and usename = '${SERVICE_ROLE}'`,
    );
    const waited = longest?.s ?? 0;
    stage.note(`the longest wait for the lock that PostgreSQL knew of: ${waited.toFixed(1)} s`);
    stage.expect(waited < 4, `no query is left waiting: ${waited.toFixed(1)} s`);
  },
  restore: async () => {
    await locker.query('rollback');
    await locker.end();
  },
};

export const auditLocked: Fault = {
  name: 'somebody holds a lock on the record of changes',
  seconds: 4,
  start: (stage) => stage.serve(),
  inject: async (stage) => {
    locker = await stage.system.connect();
    await locker.query('begin; lock table gatehouse.audit_event in access exclusive mode');
    await sleep(2500);
    stage.look();
  },
  expect: (stage) => {
    const { load, ledger } = stage;
    stage.expect(only(load.tally, [200]), `reads are answered: ${statusesOf(load.tally)}`);
    stage.expect(only(ledger.tally, [503]), `writes are not: ${statusesOf(ledger.tally)}`);
  },
  restore: async () => {
    await locker.query('rollback');
    await locker.end();
  },
};

export const readOnly: Fault = {
  name: 'PostgreSQL is read-only (default_transaction_read_only)',
  seconds: 3,
  start: (stage) => stage.serve(),
  inject: async (stage) => {
    await stage.system.sql('alter system set default_transaction_read_only = on');
    await stage.system.sql('select pg_reload_conf()');
    await sleep(500);
    stage.look();
  },
  expect: (stage) => {
    const { load, ledger } = stage;
    stage.expect(only(load.tally, [200]), `reads are answered: ${statusesOf(load.tally)}`);
    stage.expect(only(ledger.tally, [503]), `writes are not: ${statusesOf(ledger.tally)}`);
    stage.expect(ledger.tally.requests > 0, 'writes were tried');
  },
  restore: async ({ system }) => {
    await system.sql('alter system reset default_transaction_read_only');
    await system.sql('select pg_reload_conf()');
    await sleep(200);
  },
};
