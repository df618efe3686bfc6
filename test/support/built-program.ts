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
  parameters: string[] = [],
): Promise<ProgramResult> {
  const child = spawn(process.execPath, [...WITHOUT_EXTENSIONS, `dist/${path}`, ...parameters], {
    env: { PATH: process.env['PATH'], NODE_ENV: 'test', ...withDirectUrl(variables) },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}
