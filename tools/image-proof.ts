/**
 * Runs `compose.yaml` and the hardened image, and proves what the documents promise: one line each.
 * `.ci/image` starts it, on an engine of its own.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from './errors.ts';

const TIMEOUT_MS = 120_000;
const BETTER_AUTH = 'http://localhost:3000';
const API = 'http://localhost:8000';
const secret = () => randomBytes(24).toString('hex');
Object.assign(process.env, {
  COMPOSE_PROJECT_NAME: 'proof',
  POSTGRES_PASSWORD: secret(),
  GATEHOUSE_PASSWORD: secret(),
  BETTER_AUTH_SECRET: secret(),
});
/** As in the manifests for Kubernetes. The default seccomp profile needs no flag. */
const HARDENED = ['--read-only', '--cap-drop=ALL', '--security-opt=no-new-privileges'];

type Fact = string | number;

try {
  await proveCompose();
  await proveImage();
  proveMemoryLimit();
  printSize();
} catch (error) {
  console.error(
    run('compose', 'logs', '--tail=5').output,
    run('logs', '--tail=5', 'hardened').output,
  );
  console.error(`failed: ${messageOf(error)}`);
  process.exitCode = 1;
}

async function proveCompose(): Promise<void> {
  docker('compose', 'up', '--build', '--detach');
  prove('compose.yaml: exit code of migrate', stateOf('proof-migrate-1', 'ExitCode'), '0');
  for (const service of ['postgres', 'better-auth']) {
    await proveSoon(`compose.yaml: ${service}`, () => healthOf(`proof-${service}-1`), 'healthy');
  }
  await proveSoon('compose.yaml: GET /health/ready', () => statusOf('/health/ready'), 200);
  const user = { name: 'Proof', email: 'proof@example.com', password: secret() };
  const { token: session } = await callBetterAuth('/sign-up/email', { body: JSON.stringify(user) });
  const { token } = await callBetterAuth('/token', { session });
  const me = await statusOf('/api/v1/auth/me', { authorization: `Bearer ${token}` });
  prove('compose.yaml: GET /auth/me with the token', me, 200);
  prove('compose.yaml: GET /auth/me without a token', await statusOf('/api/v1/auth/me'), 401);
}

async function proveImage(): Promise<void> {
  startHardened();
  await proveSoon('HEALTHCHECK', () => healthOf('hardened'), 'healthy');
  const ready = 'fetch("http://localhost:8000/health/ready").then((r) => console.log(r.status))';
  const variables = 'only DATABASE_URL and BETTER_AUTH_URL are set: GET /health/ready';
  await proveSoon(variables, () => inContainer('node', '-e', ready), '200');
  const status = inContainer('cat', '/proc/1/status');
  const field = (name: string) => new RegExp(`^${name}:\t(\\S+)`, 'm').exec(status)?.[1];
  prove('process 1', inContainer('cat', '/proc/1/cmdline').split('\0', 1)[0], 'node');
  prove('process 1: uid', field('Uid'), '1000');
  prove('process 1: CapEff', field('CapEff'), '0000000000000000');
  prove('process 1: NoNewPrivs', field('NoNewPrivs'), '1');
  prove('process 1: Seccomp (2 is a filter)', field('Seccomp'), '2');
  for (const folder of ['/', '/app', '/tmp']) {
    const { output } = run('exec', 'hardened', 'touch', `${folder}/file`);
    prove(`write to ${folder}`, /: ([^:]+)\n$/.exec(output)?.[1], 'Read-only file system');
  }
  docker('kill', '--signal=STOP', 'hardened');
  await proveSoon('HEALTHCHECK, process frozen', () => healthOf('hardened'), 'unhealthy');
  docker('kill', '--signal=CONT', 'hardened');
  await proveSoon('HEALTHCHECK, process continued', () => healthOf('hardened'), 'healthy');
  docker('stop', '--time=30', 'hardened');
  prove('exit code after SIGTERM', stateOf('hardened', 'ExitCode'), '0');
}

/**
 * Only two variables. Plain http is allowed on loopback alone, so the image shares the network of a
 * second Better-Auth, with the settings of the first.
 */
function startHardened(): void {
  const settings = docker('inspect', '--format={{json .Config.Env}}', 'proof-better-auth-1');
  const server = (JSON.parse(settings) as string[]).find((line) => line.startsWith('BETTER_'));
  const network = ['--network=proof_default', '--name=issuer', `--env=${server}`];
  docker('run', '--detach', ...network, 'gatehouse-better-auth');
  const role = `gatehouse:${process.env['GATEHOUSE_PASSWORD']}`;
  const variables = [
    `--env=DATABASE_URL=postgresql://${role}@postgres:5432/gatehouse`,
    `--env=BETTER_AUTH_URL=${BETTER_AUTH}`,
  ];
  const limits = ['--memory=512m', '--pids-limit=64', '--network=container:issuer'];
  const health = ['--health-interval=1s', '--health-timeout=2s', '--health-retries=2'];
  const flags = [...HARDENED, ...limits, ...health, ...variables];
  docker('run', '--detach', '--name=hardened', ...flags, 'gatehouse');
}

/** 137 is 128 + SIGKILL, from the kernel. */
function proveMemoryLimit(): void {
  const code = 'const all = []; for (;;) all.push(Buffer.alloc(2 ** 20, 1));';
  const flags = ['--name=greedy', '--memory=64m', '--memory-swap=64m', ...HARDENED];
  run('run', ...flags, 'gatehouse', 'node', '-e', code);
  prove('more than 64 MB of memory: OOMKilled', stateOf('greedy', 'OOMKilled'), 'true');
  prove('more than 64 MB of memory: exit code', stateOf('greedy', 'ExitCode'), '137');
}

function printSize(): void {
  const base = /^ARG NODE_IMAGE=(.+)$/m.exec(readFileSync('Dockerfile', 'utf8'))?.[1] ?? '';
  const [all = 0, below = 0] = docker('image', 'inspect', '--format={{.Size}}', 'gatehouse', base)
    .split('\n')
    .map((bytes) => Math.round(Number(bytes) / 1e6));
  console.log(`    size: ${all} MB, of which ${all - below} MB are above the base image`);
}

async function callBetterAuth(
  path: string,
  { body, session }: { body?: string; session?: string | undefined },
): Promise<{ token?: string }> {
  const headers = {
    origin: BETTER_AUTH,
    'content-type': 'application/json',
    ...(session ? { authorization: `Bearer ${session}` } : {}),
  };
  const options = body ? { method: 'POST', headers, body } : { headers };
  const response = await fetch(`${BETTER_AUTH}/api/auth${path}`, options);
  prove(`compose.yaml: Better-Auth, ${path}`, response.status, 200);
  return (await response.json()) as { token?: string };
}

async function statusOf(path: string, headers: Record<string, string> = {}): Promise<number> {
  const signal = AbortSignal.timeout(10_000);
  return (await fetch(`${API}${path}`, { headers, signal }).catch(() => undefined))?.status ?? 0;
}

function healthOf(container: string): string {
  return stateOf(container, 'Health.Status');
}

function stateOf(container: string, field: string): string {
  return docker('inspect', `--format={{.State.${field}}}`, container);
}

function inContainer(...command: string[]): string {
  return run('exec', 'hardened', ...command).output.trim();
}

function docker(...words: string[]): string {
  const { status, output } = run(...words);
  if (status !== 0) throw new Error(`docker ${words[0]}: ${output.slice(-2000)}`);
  return output.trim();
}

function run(...words: string[]) {
  const { status, stdout, stderr } = spawnSync('docker', words, { encoding: 'utf8' });
  return { status, output: `${stdout}${stderr}` };
}

async function proveSoon(
  promise: string,
  read: () => Fact | Promise<Fact>,
  wanted: Fact,
): Promise<void> {
  const started = Date.now();
  let actual = await read();
  while (actual !== wanted && Date.now() - started < TIMEOUT_MS) {
    await sleep(200);
    actual = await read();
  }
  prove(`${promise}, after ${((Date.now() - started) / 1000).toFixed(1)} s`, actual, wanted);
}

function prove(promise: string, actual: Fact | undefined, wanted: Fact): void {
  if (actual !== wanted) throw new Error(`${promise}: ${actual}, not ${wanted}`);
  console.log(`ok  ${promise}: ${actual}`);
}
