import { spawn } from 'node:child_process';
import { withDirectUrl } from './database.ts';

/** The arguments of Node for a program of the build. */
export const WITHOUT_EXTENSIONS = ['--import', './test/support/without-extensions.ts'];

export interface ProgramResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program of the build, as a user of the command line would, to its end. */
export function runBuilt(
  path: string,
  variables: Record<string, string>,
  args: string[] = [],
  input?: string,
): Promise<ProgramResult> {
  const child = spawn(process.execPath, [...WITHOUT_EXTENSIONS, `dist/${path}`, ...args], {
    env: { PATH: process.env['PATH'], NODE_ENV: 'test', ...withDirectUrl(variables) },
  });
  // The program may end before it reads its input.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}
