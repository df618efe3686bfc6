import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitForExit, stopProgram, hasExited } from '../../tools/program.ts';

export interface ExternalProgram {
  pid: number;
  /** The end of what it has written to its output. */
  output(): string;
  untilReady(isReady: () => Promise<boolean>): Promise<void>;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

const running = new Set<() => void>();
process.on('exit', () => running.forEach((kill) => kill()));

/** Starts an installed program in the foreground. It ends with this process. */
export function startExternalProgram(program: string, args: string[]): ExternalProgram {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (output = `${output}${chunk.toString()}`.slice(-10_000)));
  }
  const kill = (): void => void child.kill('SIGKILL');
  running.add(kill);
  void waitForExit(child).then(() => running.delete(kill));
  return {
    pid: child.pid ?? 0,
    output: () => output,
    untilReady: async (isReady) => {
      for (let attempt = 0; attempt < 200 && !hasExited(child); attempt += 1) {
        if (await isReady()) return;
        await sleep(50);
      }
      kill();
      throw new Error(`${program} did not start: ${output}`);
    },
    stop: () => stopProgram(child, 3000),
    kill: async () => {
      kill();
      await waitForExit(child);
    },
  };
}

/** The PATH of an ordinary user may lack the folders of system programs. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/local/sbin', '/usr/sbin'];
  return folders.map((folder) => `${folder}/${name}`).find((path) => existsSync(path));
}

/** Why a test that needs the program cannot run. Undefined if it can. */
export function missingProgram(name: string): string | undefined {
  return findProgram(name) ? undefined : `${name} is not installed (apt-get install ${name})`;
}
