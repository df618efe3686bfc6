import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { printRows, type Row } from './row.ts';
import { type BenchEnv, withBenchEnv } from './bench-env.ts';

/**
 * Measures the time from the start of the process to the first 200 of `/health/ready`, without and
 * with Node's compile cache in turns.
 */
export async function benchStart(rounds: number): Promise<Row[]> {
  return withBenchEnv(1, async (env) => {
    const folder = await mkdtemp(join(tmpdir(), 'gatehouse-compile-cache-'));
    try {
      const cached = { NODE_COMPILE_CACHE: folder };
      // The first start fills the cache when it ends.
      await startOnce(env, cached);
      const plain: number[] = [];
      const warm: number[] = [];
      for (let round = 0; round < rounds; round += 1) {
        plain.push(await startOnce(env, {}));
        warm.push(await startOnce(env, cached));
      }
      const figure = (took: number[]) =>
        `${Math.round(median(took))} ms (${took.map(Math.round).join(', ')})`;
      return [
        {
          what: 'start to ready',
          figure: figure(plain),
          ratio: median(plain) / 1500,
          wanted: '<= 1500 ms',
          met: median(plain) <= 1500,
        },
        {
          what: 'start to ready, with NODE_COMPILE_CACHE: to without',
          figure: figure(warm),
          ratio: median(warm) / median(plain),
          wanted: '-',
          met: true,
        },
      ];
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}

async function startOnce(env: BenchEnv, variables: Record<string, string>): Promise<number> {
  const startedAt = performance.now();
  const replica = await env.serve({ ...variables, SHUTDOWN_DELAY_MS: '0' });
  while ((await fetch(`${replica.url}/health/ready`)).status !== 200) await sleep(5);
  const took = performance.now() - startedAt;
  await replica.end('SIGINT');
  return took;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

if (import.meta.main) printRows(await benchStart(5));
