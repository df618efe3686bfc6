/**
 * `npm start`: the whole thing on a bare machine. PostgreSQL, a real Better-Auth with a demo admin
 * and a demo user, our migrations and the API, all on 127.0.0.1. It reads PORT, BETTER_AUTH_PORT,
 * POSTGRES_PORT and DATA_DIR; with DATABASE_URL and BETTER_AUTH_URL it uses those instead of parts
 * of its own. `--fresh` begins with an empty database.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { access, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseEnv } from 'node:util';
import { Client } from 'pg';
import { BetterAuthError, startBetterAuth, type BetterAuth } from './better-auth.ts';
import { errorCode, DevStackError, messageOf } from './errors.ts';
import { lockFolder } from './lock.ts';
import { isPortInUse } from './ports.ts';
import { startPostgres, type Postgres } from './postgres.ts';
import { waitForExit, stopProgram, startProgram } from './program.ts';

const ADMIN = { email: 'admin@example.com', password: 'demo-admin-password', name: 'Demo Admin' };
const USER = { email: 'user@example.com', password: 'demo-user-password', name: 'Demo User' };

const API_PROGRAM = resolve('dist/src/main.js');
const MIGRATE_PROGRAM = resolve('dist/src/cli/migrate.js');
const HOST = '127.0.0.1';
const DATABASE = 'gatehouse';
const READY_PATH = '/health/ready';
/** What the printed `curl` asks for. */
const TRY_PATH = '/api/v1/auth/me';
const READY_TIMEOUT_MS = 60_000;
const API_STOP_GRACE_MS = 15_000;
const MIGRATE_STOP_GRACE_MS = 5_000;
const ECHO_MS = 1_000;
const PARENT_WATCH_MS = 250;

/** A part of the stack that runs. */
interface Part {
  name: string;
  ended: Promise<void>;
  stop(): Promise<void>;
}

/** What the API needs of others: embedded here, or running elsewhere. */
interface Surroundings {
  databaseUrl: string;
  betterAuthUrl: string;
  /** Ours to ask for a demo token; undefined where it runs elsewhere. */
  betterAuth: BetterAuth | undefined;
}

const interrupted = new AbortController();
const hurried = new AbortController();
const interruption = new Promise<never>((_, reject) => {
  interrupted.signal.addEventListener('abort', () => reject(interrupted.signal.reason));
});
interruption.catch(() => undefined);

listenForInterruption();
process.exit(await runStack());

/** Runs until it is interrupted or a part ends by itself; answers the exit code. */
async function runStack(): Promise<number> {
  const parts: Part[] = [];
  let unlock: (() => Promise<void>) | undefined;
  let exitCode = 0;
  try {
    const settings = readSettings();
    await checkBuild();
    if (!settings.elsewhere) unlock = await lockFolder(settings.dataDir);
    await checkPorts(settings);
    await startParts(settings, parts);
    await unlessInterrupted(Promise.race(parts.map(untilItEnds)));
  } catch (fault) {
    if (!interrupted.signal.aborted) {
      exitCode = 1;
      console.error(fault instanceof DevStackError ? fault.message : fault);
    }
  }
  if (parts.length > 0) console.log('Stopping.');
  for (const part of parts.toReversed()) {
    await part.stop().catch((fault: unknown) => {
      exitCode = 1;
      console.error(`${part.name} could not be stopped: ${messageOf(fault)}`);
    });
  }
  await unlock?.();
  return exitCode;
}

async function startParts(settings: Settings, parts: Part[]): Promise<void> {
  const surroundings = settings.elsewhere ?? (await startSurroundings(settings, parts));
  const env = {
    ...process.env,
    HOST: process.env['HOST'] ?? HOST,
    PORT: String(settings.port),
    NODE_ENV: 'development',
    // No load balancer has to notice the end first.
    SHUTDOWN_DELAY_MS: process.env['SHUTDOWN_DELAY_MS'] ?? '0',
    DATABASE_URL: surroundings.databaseUrl,
    // Not the one that .env may name: that is another database.
    ...(settings.elsewhere ? {} : { DATABASE_DIRECT_URL: surroundings.databaseUrl }),
    BETTER_AUTH_URL: surroundings.betterAuthUrl,
  };
  await migrate(env);

  const api = startProgram({ file: API_PROGRAM, env, output: 'inherit' });
  parts.push({
    name: 'The API',
    ended: waitForExit(api),
    stop: () => stopProgram(api, API_STOP_GRACE_MS, hurried.signal),
  });
  const apiUrl = `http://${HOST}:${settings.port}`;
  await unlessInterrupted(Promise.race([untilReady(apiUrl), ...parts.map(untilItEnds)]));
  console.log(await unlessInterrupted(greeting(apiUrl, surroundings, settings)));
}

async function startSurroundings(settings: Settings, parts: Part[]): Promise<Surroundings> {
  const postgres = await startPostgres({
    dataDir: join(settings.dataDir, 'postgres'),
    port: settings.postgresPort,
    fresh: settings.fresh,
    detached: true,
  });
  parts.push({ name: 'PostgreSQL', ended: postgres.ended, stop: () => postgres.stop() });
  interrupted.signal.throwIfAborted();
  const databaseUrl = await openDatabase(postgres);

  const betterAuth = await startBetterAuth({
    databaseUrl,
    port: settings.betterAuthPort,
    secret: await readOrMakeSecret(join(settings.dataDir, 'better-auth-secret')),
    sid: true,
    migrate: true,
    trustedOrigins: [...settings.corsOrigins, ...ownOrigins(settings.port)],
    output: console.error,
  });
  parts.push({ name: 'Better-Auth', ended: betterAuth.ended, stop: () => betterAuth.stop() });
  interrupted.signal.throwIfAborted();

  await signUpOnce(betterAuth, ADMIN);
  await signUpOnce(betterAuth, USER);
  await promote(databaseUrl, ADMIN.email);
  return { databaseUrl, betterAuthUrl: betterAuth.origin, betterAuth };
}

async function openDatabase(postgres: Postgres): Promise<string> {
  await postgres.createDatabase(DATABASE).catch((fault: unknown) => {
    const alreadyThere = '42P04';
    if (errorCode(fault) !== alreadyThere) throw fault;
  });
  return postgres.url(DATABASE);
}

async function readOrMakeSecret(file: string): Promise<string> {
  const secret = randomBytes(32).toString('base64url');
  try {
    await writeFile(file, secret, { flag: 'wx', mode: 0o600 });
    return secret;
  } catch (fault) {
    if (errorCode(fault) !== 'EEXIST') throw fault;
    return readFile(file, 'utf8');
  }
}

async function signUpOnce(betterAuth: BetterAuth, person: typeof USER): Promise<void> {
  await betterAuth.signUp(person).catch((fault: unknown) => {
    if (!errorCode(fault)?.startsWith('USER_ALREADY_EXISTS')) throw fault;
  });
}

// As Better-Auth's documentation has it: the first admin cannot be made by another.
async function promote(databaseUrl: string, email: string): Promise<void> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await client.query(
      `UPDATE "user" SET role = 'admin', "updatedAt" = now() WHERE email = $1 AND role IS DISTINCT FROM 'admin'`,
      [email],
    );
  } finally {
    await client.end();
  }
}

async function migrate(env: NodeJS.ProcessEnv): Promise<void> {
  const migration = startProgram({ file: MIGRATE_PROGRAM, env, output: 'inherit' });
  try {
    await unlessInterrupted(waitForExit(migration));
  } finally {
    await stopProgram(migration, MIGRATE_STOP_GRACE_MS);
  }
  if (migration.exitCode !== 0) throw new DevStackError('The migrations failed: see above.');
}

async function untilReady(apiUrl: string): Promise<void> {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  while ((await statusOf(`${apiUrl}${READY_PATH}`)) !== 200) {
    interrupted.signal.throwIfAborted();
    if (Date.now() > deadline) {
      throw new DevStackError(
        `The API was not ready after ${READY_TIMEOUT_MS / 1000} s: see ${apiUrl}${READY_PATH}.`,
      );
    }
    await sleep(50);
  }
}

async function untilItEnds({ name, ended }: Part): Promise<never> {
  await ended;
  throw new DevStackError(`${name} ended unexpectedly.`);
}

// ── What is printed ─────────────────────────────────────────────────────────────────────────────

async function greeting(
  apiUrl: string,
  surroundings: Surroundings,
  { port, betterAuthPort, corsOrigins }: Settings,
): Promise<string> {
  const { betterAuth, betterAuthUrl, databaseUrl } = surroundings;
  const addresses = `
Gatehouse is ready.

  API          ${apiUrl}
  Swagger UI   ${apiUrl}/api/v1/docs
  Better-Auth  ${betterAuthUrl}`;
  if (!betterAuth) {
    return `${addresses}\n\n  curl -i ${apiUrl}${READY_PATH}\n`;
  }
  return `${addresses}
  PostgreSQL   ${databaseUrl}
${corsOrigins.map((origin) => pageAddresses(origin, port, betterAuthPort)).join('')}
  Demo admin   ${ADMIN.email}   ${ADMIN.password}
  Demo user    ${USER.email}    ${USER.password}

${await tryIt(apiUrl, betterAuth)}
A new token of the demo admin (of the demo user with their address and password):

${howToGetToken(betterAuth)}
`;
}

// A cookie of 127.0.0.1 does not reach a page of localhost: to a browser they are two sites.
function pageAddresses(origin: string, port: number, betterAuthPort: number): string {
  const { hostname: host } = new URL(origin);
  if (host !== 'localhost' && host !== HOST) return '';
  return `
  A page on ${origin} uses
    http://${host}:${port}/api/v1 and http://${host}:${betterAuthPort}/api/auth
`;
}

// The curl that is printed has been tried: nobody should paste what does not work.
async function tryIt(apiUrl: string, betterAuth: BetterAuth): Promise<string> {
  const token = await demoToken(betterAuth);
  const answer = token ? await statusOf(`${apiUrl}${TRY_PATH}`, token) : undefined;
  if (token && answer === 200) {
    return `Ask the API who the demo user is (the token is good for 15 minutes):

  curl -i ${apiUrl}${TRY_PATH} -H 'Authorization: Bearer ${token}'
`;
  }
  const reason = token
    ? `${TRY_PATH} answered ${answer ?? 'nothing'} to a fresh token of the demo user`
    : 'The demo user cannot sign in with the password above';
  return `${reason}; this works:

  curl -i ${apiUrl}${READY_PATH}
`;
}

async function demoToken(betterAuth: BetterAuth): Promise<string | undefined> {
  try {
    const { sessionToken } = await betterAuth.signIn(USER);
    return await betterAuth.tokenFor(sessionToken);
  } catch (fault) {
    if (!(fault instanceof BetterAuthError)) throw fault;
    // Banned, or given another password, in an earlier run.
    if (fault.status < 500) return undefined;
    // The signing keys in the database are encrypted with the secret beside it.
    throw new DevStackError(
      `${fault.message}. If better-auth-secret in DATA_DIR was lost, begin anew: npm start -- --fresh`,
    );
  }
}

function howToGetToken({ url }: BetterAuth): string {
  const credentials = JSON.stringify({ email: ADMIN.email, password: ADMIN.password });
  const token = `sed 's/.*"token":"\\([^"]*\\)".*/\\1/'`;
  return `  SESSION=$(curl -s ${url}/api/auth/sign-in/email -H 'Content-Type: application/json' -d '${credentials}' | ${token})
  TOKEN=$(curl -s ${url}/api/auth/token -H "Authorization: Bearer $SESSION" | ${token}); echo "$TOKEN"`;
}

async function statusOf(url: string, token?: string): Promise<number | undefined> {
  const headers = token ? { authorization: `Bearer ${token}` } : undefined;
  const signal = AbortSignal.timeout(5_000);
  const response = await fetch(url, { ...(headers && { headers }), signal }).catch(() => undefined);
  await response?.body?.cancel();
  return response?.status;
}

// ── Before anything starts ──────────────────────────────────────────────────────────────────────

interface Settings {
  port: number;
  betterAuthPort: number;
  /** 0: the one of last time, or any free one. */
  postgresPort: number;
  dataDir: string;
  fresh: boolean;
  /** Pages that may use the API and Better-Auth from another origin. */
  corsOrigins: string[];
  elsewhere: Surroundings | undefined;
}

function readSettings(): Settings {
  const [unknown] = process.argv.slice(2).filter((argument) => argument !== '--fresh');
  if (unknown) throw new DevStackError(`"${unknown}" is not understood: --fresh is all there is.`);
  return {
    port: readPort('PORT', 8000),
    betterAuthPort: readPort('BETTER_AUTH_PORT', 3000),
    postgresPort: readPort('POSTGRES_PORT', 0),
    dataDir: resolve(process.env['DATA_DIR'] || '.data'),
    fresh: process.argv.includes('--fresh'),
    corsOrigins: readCorsOrigins(),
    elsewhere: readElsewhere(),
  };
}

/** As the API reads it: from the environment, or from `.env`. The API refuses what is no origin. */
function readCorsOrigins(): string[] {
  const file = existsSync('.env') ? parseEnv(readFileSync('.env', 'utf8')) : {};
  const text = process.env['CORS_ORIGINS'] ?? file['CORS_ORIGINS'] ?? '';
  const origins = text.split(',').map((origin) => origin.trim());
  return origins.filter((origin) => URL.canParse(origin));
}

/** Swagger UI's. */
function ownOrigins(port: number): string[] {
  return [`http://${HOST}:${port}`, `http://localhost:${port}`];
}

function readPort(variable: string, fallback: number): number {
  const text = process.env[variable];
  if (!text) return fallback;
  const port = Number(text);
  if (/^\d+$/.test(text) && port >= 1 && port <= 65_535) return port;
  throw new DevStackError(`${variable} is "${text}" and must be a port, from 1 to 65535.`);
}

// One of ours with one of yours would write demo users into your database, or let nobody sign in.
function readElsewhere(): Surroundings | undefined {
  const { DATABASE_URL: databaseUrl, BETTER_AUTH_URL: betterAuthUrl } = process.env;
  if (databaseUrl && betterAuthUrl) return { databaseUrl, betterAuthUrl, betterAuth: undefined };
  if (!databaseUrl && !betterAuthUrl) return undefined;
  const [given, missing] = databaseUrl
    ? ['DATABASE_URL', 'BETTER_AUTH_URL']
    : ['BETTER_AUTH_URL', 'DATABASE_URL'];
  throw new DevStackError(`${given} is set and ${missing} is not: set both, or neither.`);
}

async function checkBuild(): Promise<void> {
  await Promise.all([access(API_PROGRAM), access(MIGRATE_PROGRAM)]).catch(() => {
    throw new DevStackError('The API is not built: run "npm run build" first.');
  });
}

async function checkPorts({ port, betterAuthPort, elsewhere }: Settings): Promise<void> {
  await checkPort('PORT', port);
  if (elsewhere) return;
  if (port === betterAuthPort) {
    throw new DevStackError(`PORT and BETTER_AUTH_PORT are both ${port}: change one of them.`);
  }
  await checkPort('BETTER_AUTH_PORT', betterAuthPort);
}

async function checkPort(variable: string, port: number): Promise<void> {
  if (await isPortInUse(port)) {
    throw new DevStackError(`Port ${port} is in use: set ${variable} to another.`);
  }
}

// ── Interruption ────────────────────────────────────────────────────────────────────────────────

function listenForInterruption(): void {
  let first: number | undefined;
  const interrupt = (): void => {
    first ??= Date.now();
    interrupted.abort();
    // The second Ctrl-C of somebody who waits. npm sends a copy of the first one right behind it.
    if (Date.now() - first > ECHO_MS) hurried.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  noticeEndOfNpm(() => interrupted.abort());
  // A terminal that is gone ends the stack, in order; it does not throw.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => interrupted.abort());
  }
}

// npm passes a SIGTERM to the shell between us, which dies of it without a word.
function noticeEndOfNpm(interrupt: () => void): void {
  const shell = process.ppid;
  const watch = (): void => {
    if (process.ppid !== shell) interrupt();
  };
  if (process.env['npm_lifecycle_event']) setInterval(watch, PARENT_WATCH_MS).unref();
}

function unlessInterrupted<Result>(work: Promise<Result>): Promise<Result> {
  return Promise.race([work, interruption]);
}
