import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freshCalls, sessionCalls, warmCalls } from './hot-path.ts';
import { load } from './load.ts';
import { printRows, type Row } from './row.ts';
import { withBenchEnv } from './bench-env.ts';

const CONNECTIONS = 32;

/**
 * Measures requests whose token is new and whose user is not cached: one signature check and one
 * query. Then it profiles them, and reports the CPU time of each part.
 */
export async function benchColdPath(requests: number, rounds: number): Promise<Row[]> {
  return withBenchEnv(1000, async (env) => {
    const folder = await mkdtemp(join(tmpdir(), 'gatehouse-profile-'));
    try {
      // Without the change feed, no user is cached.
      const cold = await env.serve({ CHANGE_FEED: 'off' });
      const first = await warmCalls(env, cold.url, 1);
      const sessions = await sessionCalls(env);
      const ours: number[] = [];
      const theirs: number[] = [];
      const coldOrder = (port: number) => ({
        connections: CONNECTIONS,
        seconds: 600,
        once: true,
        port,
        calls: freshCalls(env, first, requests),
      });
      for (let round = 0; round < rounds; round += 1) {
        ours.push((await load(coldOrder(cold.port))).perSecond);
        const order = { connections: CONNECTIONS, seconds: 5, port: env.auth.port };
        theirs.push((await load({ ...order, calls: sessions })).perSecond);
      }
      const profiled = await env.serve({
        CHANGE_FEED: 'off',
        SHUTDOWN_DELAY_MS: '0',
        NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${folder}`,
      });
      await load(coldOrder(profiled.port));
      await profiled.end('SIGINT');
      const [file = ''] = await readdir(folder);
      const profile = JSON.parse(await readFile(join(folder, file), 'utf8')) as Profile;
      const ratio = median(ours) / median(theirs);
      return [
        {
          what: "auth/me, a new token and an uncached user: to Better-Auth's get-session",
          figure: `${Math.round(median(ours))} to ${Math.round(median(theirs))} a second`,
          ratio,
          wanted: '>= 3',
          met: ratio >= 3,
        },
        ...sharesOf(profile).map(([part, share]) => ({
          what: `the same: share of ${part}`,
          figure: `${Math.round(share * 100)} % of the CPU time`,
          ratio: share,
          wanted: '-',
          met: true,
        })),
      ];
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}

/** A profile in the format of V8. */
interface Profile {
  nodes: ProfileNode[];
  samples: number[];
  timeDeltas: number[];
}

interface ProfileNode {
  id: number;
  callFrame: { functionName: string; url: string };
  children?: number[];
}

/** The parts of a request, by their innermost frame. The order decides between several. */
const PARTS: [part: string, frame: (functionName: string, url: string) => boolean][] = [
  ['garbage collection', (name) => name === '(garbage collector)'],
  ['the signature check', (_, url) => url.includes('internal/crypto/sig')],
  [
    'the query (pg, MikroORM)',
    (_, url) => /node_modules\/(pg|pg-[a-z]+|kysely|@mikro-orm)\//.test(url),
  ],
  ['token, user and verdict', (_, url) => /dist\/src\/(auth|access|better-auth)\//.test(url)],
  ['log line', (_, url) => /dist\/src\/logging|node_modules\/pino/.test(url)],
  ['Passport', (_, url) => url.includes('node_modules/passport')],
  ['Nest and Express', (_, url) => /node_modules\/(@nestjs|express|router)\//.test(url)],
  ['the other code of Gatehouse', (_, url) => url.includes('dist/src/')],
];

/** Counts the samples after the start of the process, which ends with the first signature check. */
function sharesOf({ nodes, samples, timeDeltas }: Profile): [part: string, share: number][] {
  const partOf = new Map<number, string>();
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const visit = (node: ProfileNode, inherited: string): void => {
    const { functionName, url } = node.callFrame;
    const own = PARTS.find(([, matches]) => matches(functionName, url))?.[0];
    const idle = functionName === '(idle)' ? IDLE : undefined;
    const part = idle ?? own ?? inherited;
    partOf.set(node.id, part);
    for (const id of node.children ?? []) visit(byId.get(id) as ProfileNode, part);
  };
  const [root] = nodes;
  if (root) visit(root, REST);
  const started = samples.findIndex((id) => partOf.get(id) === 'the signature check');
  const spent = new Map<string, number>();
  let total = 0;
  for (const [index, id] of samples.entries()) {
    const part = partOf.get(id) ?? REST;
    const time = timeDeltas[index] ?? 0;
    if (index < started || part === IDLE) continue;
    total += time;
    spent.set(part, (spent.get(part) ?? 0) + time);
  }
  return [...spent]
    .map(([part, time]): [string, number] => [part, time / total])
    .toSorted(([, a], [, b]) => b - a);
}

const IDLE = 'idle';
const REST = "Node's HTTP server and event loop";

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

if (import.meta.main) printRows(await benchColdPath(20_000, 3));
