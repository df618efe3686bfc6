import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { openSync, readFileSync, readSync, fstatSync, unlinkSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findFreePort } from '../../tools/ports.ts';
import { WITHOUT_EXTENSIONS } from './built-program.ts';
import { withDirectUrl } from './database.ts';
import type { TestResponse } from './openapi-check.ts';
import {
  addOutputSource,
  registerDatabase,
  registerToken,
  isLeakDetectorActive,
} from './leak-detector.ts';

export interface AppProcess {
  readonly url: string;
  readonly port: number;
  readonly child: ChildProcess;
  /** What it wrote so far. */
  readonly output: { stdout: string; stderr: string };
  /** Its log so far; a line that is not JSON throws. */
  lines(): Record<string, unknown>[];
  /** Sends a signal and resolves with the exit code and the time that it took. */
  end(signal?: NodeJS.Signals): Promise<{ code: number | null; ms: number }>;
  residentMegabytes(): number;
}

export interface StartOptions {
  port?: number;
  /** `pipe` keeps the output, `unread` fills the pipe, `closed` closes it, a number is a file. */
  output?: 'pipe' | 'unread' | 'closed' | number;
  /** Resolves as soon as it is started, not when it answers. */
  skipReadyCheck?: boolean;
}

const running = new Set<ChildProcess>();

/** The arguments of `npm run start:prod`, without npm. */
const PRODUCTION_ARGUMENTS = readScript('start:prod')
  .replace(/^exec env NODE_ENV=production node /, '')
  .split(' ');

function readScript(name: string): string {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    scripts: Record<string, string>;
  };
  return scripts[name] ?? '';
}

/** The build, as production runs it: `dist/src/main.js` in a process of its own. */
export async function startProcess(
  variables: Record<string, string>,
  { port: givenPort, output: kind = 'pipe', skipReadyCheck = false }: StartOptions = {},
): Promise<AppProcess> {
  const port = givenPort ?? (await findFreePort());
  const stdio = typeof kind === 'number' ? kind : 'pipe';
  const recording = openUnlinkedFile();
  const preload = isLeakDetectorActive ? ['--import', './test/support/recorded-process.ts'] : [];
  const child = spawn(
    process.execPath,
    [...WITHOUT_EXTENSIONS, ...preload, ...PRODUCTION_ARGUMENTS],
    {
      env: {
        PATH: process.env['PATH'],
        NODE_ENV: 'production',
        HOST: '127.0.0.1',
        PORT: String(port),
        RATE_LIMIT_PER_MINUTE: '1000000',
        ...withDirectUrl(variables),
      },
      stdio: ['ignore', stdio, stdio, recording],
    },
  );
  running.add(child);
  const ended = once(child, 'close').then(() => running.delete(child));
  const output = { stdout: '', stderr: '' };
  if (kind === 'pipe') {
    child.stdout?.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()));
  }
  if (kind === 'closed') for (const stream of [child.stdout, child.stderr]) stream?.destroy();

  if (variables['DATABASE_URL']) registerDatabase(variables['DATABASE_URL']);
  addOutputSource('the log', () => output.stdout + output.stderr);
  addOutputSource('a response', () => readRecording(recording));

  const url = `http://127.0.0.1:${port}`;
  if (!skipReadyCheck && !(await waitUntilLive(url, child))) {
    throw new Error(`It did not start: ${output.stderr}${output.stdout}`);
  }
  return {
    url,
    port,
    child,
    output,
    lines: () =>
      output.stdout
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    end: async (signal) => {
      const began = performance.now();
      if (signal) child.kill(signal);
      // An unread pipe never closes; the process is what ends.
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      const ms = performance.now() - began;
      if (kind === 'unread') child.stdout?.destroy();
      await Promise.race([ended, sleep(500)]);
      return { code: child.exitCode, ms };
    },
    residentMegabytes: () => {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
    },
  };
}

/** For `afterAll`: kills the processes that a failed test left running. */
export function killProcesses(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** Opens a file that the system deletes when the last process closes it. */
function openUnlinkedFile(): number {
  const path = join(tmpdir(), `gatehouse-${randomBytes(6).toString('hex')}`);
  const file = openSync(path, 'ax+', 0o600);
  unlinkSync(path);
  return file;
}

/** Reads what `recorded-process.ts` wrote: the responses and the tokens of the requests. */
function readRecording(file: number): string {
  const buffer = Buffer.alloc(fstatSync(file).size);
  readSync(file, buffer, 0, buffer.length, 0);
  const lines = buffer.toString().split('\n').slice(0, -1);
  const records = lines.map(
    (line) => JSON.parse(line) as { response?: string; authorization?: string },
  );
  for (const { authorization } of records) if (authorization) registerToken(authorization);
  return records.map(({ response }) => response ?? '').join('');
}

async function waitUntilLive(url: string, child: ChildProcess): Promise<boolean> {
  for (let attempt = 0; attempt < 300 && child.exitCode === null; attempt += 1) {
    const answer = await fetch(`${url}/health/live`).catch(() => undefined);
    if (answer?.ok) return true;
    await sleep(50);
  }
  return false;
}

export interface KeySet {
  url: string;
  unavailable: boolean;
  close(): void;
}

/** Enough of an issuer for a service to be ready: its key set. */
export async function startKeySet(): Promise<KeySet> {
  const { publicKey } = generateKeyPairSync('ed25519');
  const body = JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one' }] });
  const server = createServer((_request, response) => {
    if (issuer.unavailable) return void response.destroy();
    response.setHeader('content-type', 'application/json').end(body);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer: KeySet = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    unavailable: false,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  return issuer;
}

/** Repeats a request that returned 503, because a busy machine may miss the response deadline. */
export async function retryOn503(
  askOnce: () => Promise<TestResponse>,
  attempts = 10,
): Promise<TestResponse> {
  const answer = await askOnce();
  return answer.status === 503 && attempts > 1 ? retryOn503(askOnce, attempts - 1) : answer;
}

/** Asks until the answer is the wanted one, for a bounded time; resolves with how long it took. */
export async function until<Value>(
  ask: () => Promise<Value> | Value,
  wanted: Value,
  seconds = 10,
): Promise<number> {
  const began = performance.now();
  let seen = await ask();
  while (seen !== wanted && performance.now() - began < seconds * 1000) {
    await sleep(20);
    seen = await ask();
  }
  expect(seen).toBe(wanted);
  return performance.now() - began;
}
