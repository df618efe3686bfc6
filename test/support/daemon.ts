import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitForExit, stopProgram, hasExited } from '../../tools/program.ts';

export interface Daemon {
  pid: number;
  /** What it has said. */
  output(): string;
  untilReady(isReady: () => Promise<boolean>): Promise<void>;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

const running = new Set<() => void>();
process.on('exit', () => running.forEach((kill) => kill()));

/** A program of Debian's in the foreground, which ends when we do. */
export function startDaemon(program: string, args: string[]): Daemon {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (said = `${said}${chunk.toString()}`.slice(-10_000)));
  }
  const kill = (): void => void child.kill('SIGKILL');
  running.add(kill);
  void waitForExit(child).then(() => running.delete(kill));
  return {
    pid: child.pid ?? 0,
    output: () => said,
    untilReady: async (isReady) => {
      for (let attempt = 0; attempt < 200 && !hasExited(child); attempt += 1) {
        if (await isReady()) return;
        await sleep(50);
      }
      kill();
      throw new Error(`${program} did not start: ${said}`);
    },
    stop: () => stopProgram(child, 3000),
    kill: async () => {
      kill();
      await waitForExit(child);
    },
  };
}

/** An ordinary user's PATH may not lead to it. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/local/sbin', '/usr/sbin'];
  return folders.map((folder) => `${folder}/${name}`).find((path) => existsSync(path));
}

/** For `impossible`. */
export function missingProgram(name: string): string | undefined {
  return findProgram(name) ? undefined : `${name} is not installed (apt-get install ${name})`;
}
