/**
 * `npm run test:faults` injects one fault after another while the production build serves reads and
 * writes. `--long` uses the full sizes. A word selects the faults whose name contains it.
 */
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../tools/errors.ts';
import { killProcesses } from '../support/app-process.ts';
import type { Fault } from './fault.ts';
import { FAULTS } from './faults.ts';
import { only, statusesOf, addTallies, type Tally } from './load.ts';
import { type Row, table } from './report.ts';
import { FaultContext } from './fault-context.ts';
import { System } from './system.ts';

/** The promised limits. */
const ANSWERED_MS = 2500;
const BACK_MS = 1000;
/** The limit of the test, with a margin for a busy machine. */
const TOO_LATE_MS = 5000;

const BEFORE_MS = 700;
const AFTER_MS = 700;

const filters = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const long = process.argv.includes('--long');
const chosen = FAULTS.filter(
  ({ name }) => filters.length === 0 || filters.some((word) => name.includes(word)),
);
const system = new System();
let context: FaultContext | undefined;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(1)));
}
try {
  const rows: Row[] = [];
  const unknown = filters.filter((word) => !FAULTS.some(({ name }) => name.includes(word)));
  if (unknown.length > 0) throw new Error(`No fault has this name: ${unknown.join(', ')}`);
  await system.start();
  for (const fault of chosen) rows.push(await run(fault));
  const count = (result: Row['result']) => rows.filter((row) => row.result === result).length;
  console.log(`\n${table(rows)}\n`);
  console.log(`${count('ok')} ok, ${count('FAILED')} failed, ${count('skipped')} skipped`);
  if (count('FAILED') > 0) process.exitCode = 1;
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = 1;
} finally {
  await cleanUp();
}

async function cleanUp(): Promise<void> {
  await context?.close();
  killProcesses();
  await system.end();
}

async function run(fault: Fault): Promise<Row> {
  console.log(`\n${fault.name}`);
  const impossible = fault.impossible?.();
  if (impossible) {
    console.log(`  skipped: ${impossible}`);
    return { fault: fault.name, result: 'skipped' };
  }
  const startedAt = performance.now();
  const own = (context = new FaultContext(system, long));
  let figures: Partial<Row> = {};
  try {
    await system.renewTokens();
    figures = await runPhases(fault, own);
  } catch (error) {
    own.findings.push(messageOf(error));
  } finally {
    await own.close();
  }
  for (const note of own.notes) console.log(`  ${note}`);
  for (const finding of own.findings) console.log(`  FAILED: ${finding}`);
  return {
    fault: fault.name,
    result: own.findings.length === 0 ? 'ok' : 'FAILED',
    ...figures,
    seconds: (performance.now() - startedAt) / 1000,
  };
}

/** Runs all phases of a fault, and checks what holds for every fault. */
async function runPhases(fault: Fault, context: FaultContext): Promise<Partial<Row>> {
  const { answers = [200, 503], answersAfter = [200] } = fault;
  const { writes = answers } = fault;
  await fault.start(context);
  context.startLoad();
  await sleep(BEFORE_MS);
  const before = context.takeTallies();

  let over = 0;
  try {
    await fault.inject(context);
    await sleep(fault.seconds * 1000);
    await fault.expect?.(context);
  } finally {
    await fault.restore(context);
    over = performance.now();
  }
  const back = await context.load.firstSuccessAfter(over, 10_000);
  // Pending writes have their responses by then.
  if (writes.includes(503)) await sleep(ANSWERED_MS);
  const during = context.takeTallies();
  await sleep(AFTER_MS);
  const after = context.takeTallies();
  await fault.afterwards?.(context);
  await context.endLoad();
  const rest = context.takeTallies();
  addTallies(during.reads, rest.reads);
  addTallies(during.writes, rest.writes);

  const expectOnly = (tally: Tally, allowed: number[], when: string): void => {
    context.expect(only(tally, allowed), `${allowed.join(', ')} ${when}: ${statusesOf(tally)}`);
    context.expect(
      tally.withoutRetryAfter === 0,
      `each 503 has Retry-After: ${tally.withoutRetryAfter} do not`,
    );
  };
  for (const tally of Object.values(before)) expectOnly(tally, [200], 'before it');
  expectOnly(during.reads, answers, 'for reads in it');
  expectOnly(during.writes, writes, 'for writes in it');
  for (const tally of Object.values(after)) expectOnly(tally, answersAfter, 'after it');
  const slowest = Math.max(
    ...[before, during, after].flatMap(({ reads, writes }) => [reads.slowestMs, writes.slowestMs]),
  );
  context.expect(back < TOO_LATE_MS, `it is back within ${BACK_MS} ms: ${Math.round(back)} ms`);
  context.expect(
    slowest < TOO_LATE_MS,
    `all is answered within ${ANSWERED_MS} ms: ${Math.round(slowest)} ms`,
  );
  if (slowest > ANSWERED_MS) {
    context.note(
      `slower than promised: ${Math.round(slowest)} ms for the client, ${context.slowestByLog()} ms by the service's log, load average ${loadavg()[0]?.toFixed(1)}`,
    );
  }
  if (context.findings.length > 0)
    context.note(`refused because of: ${context.causes() || 'nothing'}`);
  context.expectHealthyServices();
  const ledgerResult = await context.ledger.verify((sql, values) => system.sql(sql, values));
  for (const lost of ledgerResult.lost)
    context.expect(false, `no acknowledged write is lost: ${lost}`);
  for (const doubled of ledgerResult.doubled)
    context.expect(false, `no write is done twice: ${doubled}`);
  context.expect(ledgerResult.acknowledged > 0, 'writes are acknowledged');
  return {
    reads: statusesOf(during.reads),
    writes: statusesOf(during.writes),
    slowest,
    back,
    acknowledged: ledgerResult.acknowledged,
    lost: ledgerResult.lost.length,
    doubled: ledgerResult.doubled.length,
    unconfirmed: ledgerResult.unconfirmed,
  };
}
