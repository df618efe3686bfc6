/**
 * `npm start` runs the whole system on 127.0.0.1: PostgreSQL, a real Better-Auth with a demo admin
 * and a demo user, the migrations and the API. It reads PORT, BETTER_AUTH_PORT, POSTGRES_PORT and
 * DATA_DIR. With DATABASE_URL and BETTER_AUTH_URL it uses these servers instead. `--fresh` deletes
 * the data first. `--watch` rebuilds and restarts the API after each change.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { access, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseEnv } from 'node:util';
import { Client } from 'pg';
import { ApiProgram, watchSources } from './api-program.ts';
import { BetterAuthError, startBetterAuth, type BetterAuth } from './better-auth.ts';
import { errorCode, DevStackError, messageOf } from './errors.ts';
import { lockFolder } from './folder-lock.ts';
import { isPortInUse } from './ports.ts';
import { startPostgres, type Postgres } from './postgres.ts';
import { waitForExit, stopProgram, startProgram } from './program.ts';

const ADMIN = { email: 'admin@example.com', password: 'demo-admin-password', name: 'Demo Admin' };
const USER = { email: 'user@example.com', password: 'demo-user-password', name: 'Demo User' };

const API_PROGRAM = resolve('dist/src/main.js');
const MIGRATE_PROGRAM = resolve('dist/src/cli/migrate.js');
const HOST = '127.0.0.1';
const DATABASE = 'gatehouse';
const OPTIONS = ['--fresh', '--watch'];
const READY_PATH = '/health/ready';
/** The path in the printed `curl` command. */
const TRY_PATH = '/api/v1/auth/me';
const READY_TIMEOUT_MS = 60_000;
const COMPILER_STOP_GRACE_MS = 1_000;
const MIGRATE_STOP_GRACE_MS = 5_000;
const ECHO_MS = 1_000;
const PARENT_WATCH_MS = 250;

/** A part of the stack that runs. */
interface Part {
  name: string;
  ended: Promise<void>;
  stop(): Promise<void>;
}

/** The servers that the API needs: started here, or running elsewhere. */
interface Servers {
  databaseUrl: string;
  betterAuthUrl: string;
  /** Issues the demo token; undefined if it runs elsewhere. */
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

/** Runs until it is interrupted or a part exits. Returns the exit code. */
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
    await unlessInterrupted(Promise.race(parts.map(rejectOnExit)));
  } catch (error) {
    if (!interrupted.signal.aborted) {
      exitCode = 1;
      console.error(error instanceof DevStackError ? error.message : error);
    }
  }
  if (parts.length > 0) console.log('Stopping.');
  for (const part of parts.toReversed()) {
    await part.stop().catch((error: unknown) => {
      exitCode = 1;
      console.error(`${part.name} could not be stopped: ${messageOf(error)}`);
    });
  }
  await unlock?.();
  return exitCode;
}

async function startParts(settings: Settings, parts: Part[]): Promise<void> {
  const servers = settings.elsewhere ?? (await startServers(settings, parts));
  const env = {
    ...process.env,
    HOST: process.env['HOST'] ?? HOST,
    PORT: String(settings.port),
    NODE_ENV: 'development',
    // No load balancer needs time to notice the shutdown.
    SHUTDOWN_DELAY_MS: process.env['SHUTDOWN_DELAY_MS'] ?? '0',
    DATABASE_URL: servers.databaseUrl,
    // .env may name another database.
    ...(settings.elsewhere ? {} : { DATABASE_DIRECT_URL: servers.databaseUrl }),
    BETTER_AUTH_URL: servers.betterAuthUrl,
  };
  await migrate(env);

  const api = new ApiProgram(API_PROGRAM, env);
  // With --watch a crash is no reason to stop: the next change restarts the API.
  const compiler = settings.watch ? watchSources(() => void restart(api)) : undefined;
  parts.push({
    name: compiler ? 'The compiler' : 'The API',
    ended: compiler ? waitForExit(compiler) : api.ended,
    stop: async () => {
      if (compiler) await stopProgram(compiler, COMPILER_STOP_GRACE_MS, hurried.signal);
      await api.stop(hurried.signal);
    },
  });
  const apiUrl = `http://${HOST}:${settings.port}`;
  try {
    const ends = parts.map(rejectOnExit);
    await unlessInterrupted(Promise.race([waitUntilReady(apiUrl), ...ends]));
    console.log(await unlessInterrupted(greeting(apiUrl, servers, settings)));
  } catch (error) {
    api.showAll();
    throw error;
  }
  api.show();
}

async function restart(api: ApiProgram): Promise<void> {
  console.log('Restarting the API.');
  await api.restart();
}

async function startServers(settings: Settings, parts: Part[]): Promise<Servers> {
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
  await postgres.createDatabase(DATABASE).catch((error: unknown) => {
    const duplicateDatabase = '42P04';
    if (errorCode(error) !== duplicateDatabase) throw error;
  });
  return postgres.url(DATABASE);
}

async function readOrMakeSecret(file: string): Promise<string> {
  const secret = randomBytes(32).toString('base64url');
  try {
    await writeFile(file, secret, { flag: 'wx', mode: 0o600 });
    return secret;
  } catch (error) {
    if (errorCode(error) !== 'EEXIST') throw error;
    return readFile(file, 'utf8');
  }
}

async function signUpOnce(betterAuth: BetterAuth, user: typeof USER): Promise<void> {
  await betterAuth.signUp(user).catch((error: unknown) => {
    if (!errorCode(error)?.startsWith('USER_ALREADY_EXISTS')) throw error;
  });
}

// Better-Auth's documentation sets the first admin in the database, too.
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

async function waitUntilReady(apiUrl: string): Promise<void> {
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

async function rejectOnExit({ name, ended }: Part): Promise<never> {
  await ended;
  throw new DevStackError(`${name} ended unexpectedly.`);
}

// ── What is printed ─────────────────────────────────────────────────────────────────────────────

async function greeting(
  apiUrl: string,
  servers: Servers,
  { port, betterAuthPort, corsOrigins, dataDir, watch }: Settings,
): Promise<string> {
  const { betterAuth, betterAuthUrl, databaseUrl } = servers;
  const addresses = `
Gatehouse is ready.

  API          ${apiUrl}
  Swagger UI   ${apiUrl}/api/v1/docs
  Better-Auth  ${betterAuthUrl}`;
  if (!betterAuth) {
    return `${addresses}\n\n  curl -i ${apiUrl}${READY_PATH}\n\n${stopHint(watch)}\n`;
  }
  return `${addresses}
  PostgreSQL   ${databaseUrl}
${corsOrigins.map((origin) => pageAddresses(origin, port, betterAuthPort)).join('')}
  Demo admin   ${ADMIN.email}   ${ADMIN.password}
  Demo user    ${USER.email}    ${USER.password}

${await tryIt(apiUrl, betterAuth)}
Get a new token for the demo admin:

${howToGetToken(betterAuth)}

The data is in ${dataDir}. "npm start -- --fresh" deletes it and starts again.
${stopHint(watch)}
`;
}

function stopHint(watch: boolean): string {
  const hint = watch
    ? 'The API restarts after each change in src.'
    : '"npm start -- --watch" restarts the API after each change in src.';
  return `${hint}\nPress Ctrl-C to stop.`;
}

// For a browser 127.0.0.1 and localhost are two sites with separate cookies.
function pageAddresses(origin: string, port: number, betterAuthPort: number): string {
  const { hostname: host } = new URL(origin);
  if (host !== 'localhost' && host !== HOST) return '';
  return `
  A page on ${origin} uses
    http://${host}:${port}/api/v1 and http://${host}:${betterAuthPort}/api/auth
`;
}

// Runs the printed `curl` request first, so that it works when somebody pastes it.
async function tryIt(apiUrl: string, betterAuth: BetterAuth): Promise<string> {
  const token = await demoToken(betterAuth);
  const status = token ? await statusOf(`${apiUrl}${TRY_PATH}`, token) : undefined;
  if (token && status === 200) {
    return `Read the profile of the demo user (the token is valid for 15 minutes):

  curl -i ${apiUrl}${TRY_PATH} -H 'Authorization: Bearer ${token}'
`;
  }
  const reason = token
    ? `${TRY_PATH} returned ${status ?? 'no response'} for a fresh token of the demo user`
    : 'The demo user cannot sign in with the password above';
  return `${reason}; this works:

  curl -i ${apiUrl}${READY_PATH}
`;
}

async function demoToken(betterAuth: BetterAuth): Promise<string | undefined> {
  try {
    const { sessionToken } = await betterAuth.signIn(USER);
    return await betterAuth.tokenFor(sessionToken);
  } catch (error) {
    if (!(error instanceof BetterAuthError)) throw error;
    // Banned, or with another password since an earlier run.
    if (error.status < 500) return undefined;
    // The secret encrypts the signing keys in the database.
    throw new DevStackError(
      `${error.message}. If better-auth-secret in DATA_DIR was lost, delete the data: npm start -- --fresh`,
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
  /** 0: the last port if it is free, otherwise any free port. */
  postgresPort: number;
  dataDir: string;
  fresh: boolean;
  watch: boolean;
  /** Pages that may use the API and Better-Auth from another origin. */
  corsOrigins: string[];
  elsewhere: Servers | undefined;
}

function readSettings(): Settings {
  const [unknown] = process.argv.slice(2).filter((argument) => !OPTIONS.includes(argument));
  if (unknown) {
    throw new DevStackError(
      `Unknown option "${unknown}": the options are ${OPTIONS.join(' and ')}.`,
    );
  }
  return {
    port: readPort('PORT', 8000),
    betterAuthPort: readPort('BETTER_AUTH_PORT', 3000),
    postgresPort: readPort('POSTGRES_PORT', 0),
    dataDir: resolve(process.env['DATA_DIR'] || '.data'),
    fresh: process.argv.includes('--fresh'),
    watch: process.argv.includes('--watch'),
    corsOrigins: readCorsOrigins(),
    elsewhere: readElsewhere(),
  };
}

/** From the environment or `.env`, as the API reads it. The API rejects invalid origins. */
function readCorsOrigins(): string[] {
  const file = existsSync('.env') ? parseEnv(readFileSync('.env', 'utf8')) : {};
  const text = process.env['CORS_ORIGINS'] ?? file['CORS_ORIGINS'] ?? '';
  const origins = text.split(',').map((origin) => origin.trim());
  return origins.filter((origin) => URL.canParse(origin));
}

/** The origins of Swagger UI. */
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

// A mixed pair would write demo users into your database, or prevent every sign-in.
function readElsewhere(): Servers | undefined {
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
    // A second Ctrl-C kills the parts. npm sends a copy of the first one immediately.
    if (Date.now() - first > ECHO_MS) hurried.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  watchParent(() => interrupted.abort());
  // A closed terminal stops the stack in order instead of raising an error.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => interrupted.abort());
  }
}

// npm forwards SIGTERM to the shell between us. The shell exits without forwarding it.
function watchParent(interrupt: () => void): void {
  const shell = process.ppid;
  const watch = (): void => {
    if (process.ppid !== shell) interrupt();
  };
  if (process.env['npm_lifecycle_event']) setInterval(watch, PARENT_WATCH_MS).unref();
}

function unlessInterrupted<Result>(work: Promise<Result>): Promise<Result> {
  return Promise.race([work, interruption]);
}
