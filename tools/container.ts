import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Image } from './dockerfile.ts';
import { hasExited } from './program.ts';

/** Runs programs of an image as a container runtime would, as far as this machine lets us. */
export interface ContainerRuntime {
  /** What it could do here, in words. */
  readonly description: string;
  start(image: Image, command: string[], env: Record<string, string>): Container;
}

export interface Container {
  /** What it wrote on standard output and standard error, so far. */
  output(): string;
  /** To the program itself: to process 1 where it has a process space of its own. */
  signal(signal: NodeJS.Signals): void;
  /** The exit code, or the name of the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

/**
 * With Linux namespaces: the program is process 1, as the image's user, and nothing can be written, as
 * with `docker run --read-only`. Where those are not allowed: as that user (as root) or as ourselves,
 * and without the right to write in the image.
 */
export function findRuntime(bin: string, user: number): ContainerRuntime {
  const isRoot = process.getuid?.() === 0;
  const namespaces = isRoot ? NAMESPACES : ['--user', '--map-root-user', ...NAMESPACES];
  const becomeUser = isRoot
    ? `setpriv --reuid=${user} --regid=${user} --clear-groups --no-new-privs`
    : `unshare --user --map-user=${user} --map-group=${user} --`;
  const isolated = [
    'unshare',
    ...namespaces,
    'sh',
    '-c',
    `${MAKE_READ_ONLY}; exec ${becomeUser} "$@"`,
    'sh',
  ];
  const [first, ...rest] = [...isolated, 'sh', '-c', IS_ISOLATED, 'sh', String(user)];
  if (spawnSync(first, rest, { cwd: bin, timeout: PROBE_TIMEOUT_MS }).status === 0) {
    return {
      description: `process 1, user ${user}, a read-only file system`,
      start: (image, command, env) => startContainer(image, [...isolated, ...command], env, bin),
    };
  }
  return {
    description: `${isRoot ? `user ${user}` : 'this user'}, an image without write permission (this machine allows no namespaces)`,
    start: (image, command, env) =>
      startContainer(image, command, env, bin, isRoot ? user : undefined),
  };
}

const PROBE_TIMEOUT_MS = 10_000;
const NAMESPACES = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
const MAKE_READ_ONLY = `
  while read -r _ place _; do
    case $place in
      /proc* | /sys* | /dev*) ;;
      *) mount -o remount,bind,ro "$place" 2>/dev/null ;;
    esac
  done </proc/mounts`;
// It has worked if we are who and what we want to be, and neither here nor in /tmp a file can be made.
const IS_ISOLATED = `
  [ "$$" = 1 ] && [ "$(id -u)" = "$1" ] || exit 1
  for folder in . /tmp; do
    if (: >"$folder/gatehouse-probe") 2>/dev/null; then rm "$folder/gatehouse-probe"; exit 1; fi
  done`;

function startContainer(
  image: Image,
  [program = '', ...args]: string[],
  env: Record<string, string>,
  bin: string,
  uid?: number,
): Container {
  const child = spawn(program, args, {
    cwd: join(image.root, image.workdir),
    env: {
      PATH: `${bin}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin`,
      ...image.env,
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  }
  return {
    output: () => output,
    signal(signal) {
      if (!hasExited(child)) process.kill(programOf(child, program), signal);
    },
    ended: new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve(code ?? signal ?? 'SIGKILL'));
    }),
  };
}

// `unshare` waits outside for the process that it started inside, and does not pass signals on.
function programOf({ pid }: ChildProcess, program: string): number {
  if (pid === undefined) throw new Error(`${program} could not be started.`);
  if (program !== 'unshare') return pid;
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return Number(children.split(' ', 1)[0]) || pid;
}

/** Takes the right to write away from everybody. Nobody gets the right to read who did not have it. */
export function withoutWritePermission(folder: string): void {
  execFileSync('chmod', ['-R', 'a-w', folder]);
}
