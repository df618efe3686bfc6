import { spawn, type ChildProcess } from 'node:child_process';

const endWithParent = new URL('./end-with-parent.ts', import.meta.url).href;

export interface ProgramOptions {
  /** The file that Node runs. */
  file: string;
  env: NodeJS.ProcessEnv;
  /** `inherit` shows what the program writes; `pipe` hands it to whoever started it. */
  output: 'inherit' | 'pipe';
}

/**
 * Starts a Node program that ends when this process does. It gets a process group of its own:
 * a Ctrl-C in the terminal then reaches the stack alone, which ends its parts in order.
 */
export function startProgram({ file, env, output }: ProgramOptions): ChildProcess {
  return spawn(process.execPath, ['--enable-source-maps', '--import', endWithParent, file], {
    env,
    stdio: ['pipe', output, output],
    detached: true,
  });
}

/** Resolves when the process has ended. */
export async function waitForExit(child: ChildProcess): Promise<void> {
  if (hasExited(child)) return;
  await new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    // A program that could not be started at all has no `exit`.
    child.once('error', () => resolve());
  });
}

/** Asks the process to end; insists when it has not after the grace, or when told to hurry. */
export async function stopProgram(
  child: ChildProcess,
  graceMs: number,
  hurry?: AbortSignal,
): Promise<void> {
  if (hasExited(child)) return;
  child.kill('SIGTERM');
  const insist = (): boolean => child.kill('SIGKILL');
  const late = setTimeout(insist, graceMs);
  hurry?.addEventListener('abort', insist);
  await waitForExit(child);
  clearTimeout(late);
  hurry?.removeEventListener('abort', insist);
}

export function hasExited(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}
