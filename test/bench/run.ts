import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { benchAuditExport } from './audit-export.ts';
import { benchColdPath } from './cold-path.ts';
import { benchCommitCost } from './commit-cost.ts';
import { benchFeeds } from './feeds.ts';
import { benchHotPath, FULL, QUICK } from './hot-path.ts';
import { benchLists } from './lists.ts';
import { OTHER_CORES, pin } from './load.ts';
import { benchCuts, benchReplicas } from './replicas.ts';
import { printRows, type Row } from './row.ts';
import { benchSessions } from './sessions.ts';
import { benchMemory } from './soak.ts';
import { benchStart } from './start.ts';

const { values, positionals: named } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, rows: { type: 'string' } },
});
const { quick } = values;
const listRows = values.rows === undefined ? undefined : Number(values.rows);
if (listRows !== undefined && !(Number.isInteger(listRows) && listRows >= 100_000)) {
  process.stderr.write('--rows must be a number of at least 100000.\n');
  process.exit(1);
}

/**
 * `npm run bench`: measures every promise of speed and size on this machine.
 * `-- --quick` measures less of each part. `-- hot-path lists` measures only these parts.
 * `-- lists --rows 10000000` measures lists of ten million rows.
 */
const PARTS: Record<string, (quick: boolean) => Promise<Row[]>> = {
  'hot-path': (quick) => benchHotPath(quick ? QUICK : FULL),
  'cold-path': (quick) => (quick ? benchColdPath(6000, 3) : benchColdPath(20_000, 5)),
  start: (quick) => benchStart(quick ? 3 : 5),
  replicas: (quick) => benchReplicas(quick ? 100 : 1000),
  cuts: (quick) => benchCuts(quick ? 200 : 1000),
  lists: (quick) => benchLists(quick ? 5 : 15, listRows),
  sessions: (quick) => benchSessions(quick ? 5 : 15),
  'commit-cost': (quick) => benchCommitCost(quick ? 0.2 : 0.5),
  feeds: (quick) => benchFeeds(quick ? 3 : 10),
  'audit-export': (quick) => benchAuditExport(quick ? 200_000 : 1_000_000),
  memory: (quick) => benchMemory(quick ? 150_000 : 1_000_000),
};

const unknown = named.filter((name) => !(name in PARTS));
if (unknown.length > 0) {
  process.stderr.write(`There is no ${unknown.join(', ')}: ${Object.keys(PARTS).join(', ')}.\n`);
  process.exit(1);
}

await pin(process.pid, OTHER_CORES);
const rows: Row[] = [];
for (const [name, part] of Object.entries(PARTS)) {
  if (named.length > 0 && !named.includes(name)) continue;
  process.stderr.write(`${name} …\n`);
  rows.push(...(await part(quick)));
}
printRows(rows);
const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
writeFileSync('bench-results.json', `${JSON.stringify({ quick, machine, rows }, null, 2)}\n`);
process.stdout.write('Written to bench-results.json.\n');
