import { setTimeout as sleep } from 'node:timers/promises';
import { printRows, type Row } from './row.ts';
import { withBenchEnv } from './bench-env.ts';

/** Measures the time from the start of the process to the first 200 of `/health/ready`. */
export async function benchStart(rounds: number): Promise<Row[]> {
  return withBenchEnv(1, async (env) => {
    const took: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const startedAt = performance.now();
      const replica = await env.serve();
      while ((await fetch(`${replica.url}/health/ready`)).status !== 200) await sleep(5);
      took.push(performance.now() - startedAt);
      await replica.end('SIGINT');
    }
    const middle = took.toSorted((a, b) => a - b)[Math.floor(rounds / 2)] ?? NaN;
    return [
      {
        what: 'start to ready',
        figure: `${Math.round(middle)} ms (${took.map(Math.round).join(', ')})`,
        ratio: middle / 1500,
        wanted: '<= 1500 ms',
        met: middle <= 1500,
      },
    ];
  });
}

if (import.meta.main) printRows(await benchStart(5));
