import { setTimeout as sleep } from 'node:timers/promises';
import { answerTo, bodyFor, call } from './calls.ts';
import { load } from './load.ts';
import { printRows, type Row } from './row.ts';
import { untilConnected } from './replicas.ts';
import { type BenchUser, withBenchEnv } from './bench-env.ts';

const ME = '/api/v1/auth/me';
const USERS = 50_000;

/** Resident memory before, during and after very many requests over fifty thousand tokens. */
export async function benchMemory(requests: number): Promise<Row[]> {
  return withBenchEnv(USERS, async (env) => {
    const served = await env.serve();
    await untilConnected(served);
    const first = env.users[0] as BenchUser;
    const pattern = await answerTo(served.url + ME, env.token(first));
    const calls = env.users.map((user) => call(ME, env.token(user), bodyFor(user, pattern)));
    const figures = [served.residentMegabytes()];
    for (let sent = 0; sent < requests; sent += USERS) {
      await load({ port: served.port, connections: 32, seconds: 600, once: true, calls });
      figures.push(served.residentMegabytes());
    }
    await sleep(2000);
    const last = served.residentMegabytes();
    const highest = Math.max(...figures);
    // The memory should not grow after every token was used once.
    const half = figures[Math.ceil(figures.length / 2)] ?? NaN;
    return [
      {
        what: `resident memory over ${requests} requests of ${USERS} tokens: highest`,
        figure: `${figures.map(Math.round).join(', ')}; afterwards ${Math.round(last)} MB`,
        ratio: highest / 256,
        wanted: '<= 256 MB',
        met: highest <= 256,
      },
      {
        what: 'the same: at the end to half way',
        figure: `${Math.round(figures.at(-1) ?? NaN)} to ${Math.round(half)} MB`,
        ratio: (figures.at(-1) ?? NaN) / half,
        wanted: '<= 1.1',
        met: (figures.at(-1) ?? NaN) <= half * 1.1,
      },
    ];
  });
}

if (import.meta.main) {
  printRows(await benchMemory(process.argv.includes('--quick') ? 150_000 : 1_000_000));
}
