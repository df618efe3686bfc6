import { spawn, type ChildProcess } from 'node:child_process';

const exitWithParent = new URL('./exit-with-parent.ts', import.meta.url).href;

export interface ProgramOptions {
  /** The file that Node runs. */
  file: string;
  args?: string[];
  env: NodeJS.ProcessEnv;
  /** `inherit` shows what the program writes; `pipe` passes it to the caller. */
  output: 'inherit' | 'pipe';
}

/**
 * Starts a Node program that ends when this process does. It runs in a separate process group.
 * A Ctrl-C in the terminal then reaches only the stack, which stops its parts in order.
 */
export function startProgram({ file, args = [], env, output }: ProgramOptions): ChildProcess {
  return spawn(
    process.execPath,
    ['--enable-source-maps', '--import', exitWithParent, file, ...args],
    {
      env,
      stdio: ['pipe', output, output],
      detached: true,
    },
  );
}

/** Resolves when the process has exited. */
export async function waitForExit(child: ChildProcess): Promise<void> {
  if (hasExited(child)) return;
  await new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    // A program that could not start emits no `exit`.
    child.once('error', () => resolve());
  });
}

/** Sends SIGTERM. Sends SIGKILL after the grace period, or when `hurry` is aborted. */
export async function stopProgram(
  child: ChildProcess,
  graceMs: number,
  hurry?: AbortSignal,
): Promise<void> {
  if (hasExited(child)) return;
  child.kill('SIGTERM');
  const kill = (): boolean => child.kill('SIGKILL');
  const timeout = setTimeout(kill, graceMs);
  hurry?.addEventListener('abort', kill);
  await waitForExit(child);
  clearTimeout(timeout);
  hurry?.removeEventListener('abort', kill);
}

export function hasExited(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}
