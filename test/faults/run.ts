/**
 * `npm run test:faults`: what can go wrong goes wrong, one thing after another, while the service of the
 * production build answers reads and writes. `--long` takes the full sizes; a word takes the faults whose
 * name contains it.
 */
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../tools/errors.ts';
import { killProcesses } from '../support/app-process.ts';
import type { Fault } from './fault.ts';
import { FAULTS } from './faults.ts';
import { only, statusesOf, sumOf, type Tally } from './load.ts';
import { type Row, table } from './report.ts';
import { Stage } from './stage.ts';
import { System } from './system.ts';

/** What is promised. */
const ANSWERED_MS = 2500;
const BACK_MS = 1000;
/** What fails: the rest is for a machine that is busy with something else. */
const TOO_LATE_MS = 5000;

const BEFORE_MS = 700;
const AFTER_MS = 700;

const words = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const long = process.argv.includes('--long');
const chosen = FAULTS.filter(
  ({ name }) => words.length === 0 || words.some((word) => name.includes(word)),
);
const system = new System();
let stage: Stage | undefined;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(1)));
}
try {
  const rows: Row[] = [];
  if (chosen.length === 0) throw new Error('No fault has such a name.');
  await system.start();
  for (const fault of chosen) rows.push(await play(fault));
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
  await stage?.close();
  killProcesses();
  await system.end();
}

async function play(fault: Fault): Promise<Row> {
  console.log(`\n${fault.name}`);
  const impossible = fault.impossible?.();
  if (impossible) {
    console.log(`  skipped: ${impossible}`);
    return { fault: fault.name, result: 'skipped' };
  }
  const began = performance.now();
  const own = (stage = new Stage(system, long));
  let figures: Partial<Row> = {};
  try {
    await system.renewTokens();
    figures = await watch(fault, own);
  } catch (error) {
    own.findings.push(messageOf(error));
  } finally {
    await own.close();
  }
  for (const note of own.notes) console.log(`  ${note}`);
  for (const finding of own.findings) console.log(`  NOT SO: ${finding}`);
  return {
    fault: fault.name,
    result: own.findings.length === 0 ? 'ok' : 'FAILED',
    ...figures,
    seconds: (performance.now() - began) / 1000,
  };
}

/** From a service that is well to one that is well again, with what holds for every fault. */
async function watch(fault: Fault, stage: Stage): Promise<Partial<Row>> {
  const { answers = [200, 503], answersAfter = [200] } = fault;
  const { writes = answers } = fault;
  await fault.start(stage);
  stage.startLoad();
  await sleep(BEFORE_MS);
  const before = stage.look();

  let over = 0;
  try {
    await fault.inject(stage);
    await sleep(fault.seconds * 1000);
    await fault.expect?.(stage);
  } finally {
    await fault.restore(stage);
    over = performance.now();
  }
  const back = await stage.load.firstSuccessAfter(over, 10_000);
  // What was on its way when it ended is answered by then.
  if (writes.includes(503)) await sleep(ANSWERED_MS);
  const during = stage.look();
  await sleep(AFTER_MS);
  const after = stage.look();
  await fault.afterwards?.(stage);
  await stage.endLoad();
  const rest = stage.look();
  sumOf(during.reads, rest.reads);
  sumOf(during.writes, rest.writes);

  const expectOnly = (tally: Tally, allowed: number[], when: string): void => {
    stage.expect(only(tally, allowed), `${allowed.join(', ')} ${when}: ${statusesOf(tally)}`);
    stage.expect(tally.bare === 0, `each 503 says when to come back: ${tally.bare} do not`);
  };
  for (const tally of Object.values(before)) expectOnly(tally, [200], 'before it');
  expectOnly(during.reads, answers, 'for reads in it');
  expectOnly(during.writes, writes, 'for writes in it');
  for (const tally of Object.values(after)) expectOnly(tally, answersAfter, 'after it');
  const slowest = Math.max(
    ...[before, during, after].flatMap(({ reads, writes }) => [reads.slowestMs, writes.slowestMs]),
  );
  stage.expect(back < TOO_LATE_MS, `it is back within ${BACK_MS} ms: ${Math.round(back)} ms`);
  stage.expect(
    slowest < TOO_LATE_MS,
    `all is answered within ${ANSWERED_MS} ms: ${Math.round(slowest)} ms`,
  );
  if (slowest > ANSWERED_MS) {
    stage.note(
      `slower than promised: ${Math.round(slowest)} ms for the client, ${stage.slowestByLog()} ms by the service's log, load average ${loadavg()[0]?.toFixed(1)}`,
    );
  }
  if (stage.findings.length > 0) stage.note(`refused because of: ${stage.causes() || 'nothing'}`);
  stage.expectHealthyServices();
  const books = await stage.ledger.settle((sql, values) => system.sql(sql, values));
  for (const lost of books.lost) stage.expect(false, `no acknowledged write is lost: ${lost}`);
  for (const doubled of books.doubled) stage.expect(false, `no write is done twice: ${doubled}`);
  stage.expect(books.acknowledged > 0, 'writes are acknowledged');
  return {
    reads: statusesOf(during.reads),
    writes: statusesOf(during.writes),
    slowest,
    back,
    acknowledged: books.acknowledged,
    lost: books.lost.length,
    doubled: books.doubled.length,
    unconfirmed: books.unconfirmed,
  };
}
