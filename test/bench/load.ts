import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { LoadOrder, LoadReport } from './load-generator.ts';

const program = fileURLToPath(new URL('./load-generator.ts', import.meta.url));
const execute = promisify(execFile);

/** The measured server has the first core. The load generator and databases have the others. */
export const SERVER_CORES = '0';
export const OTHER_CORES = availableParallelism() > 1 ? `1-${availableParallelism() - 1}` : '0';

/** Pins a process to cores if the system supports it. */
export async function pin(pid: number | undefined, cores: string): Promise<void> {
  await execute('taskset', ['-acp', cores, String(pid)]).catch(() => undefined);
}

/** Generates load in a separate process. Throws if a response is not the expected one. */
export async function load(order: LoadOrder): Promise<LoadReport> {
  const folder = mkdtempSync(join(tmpdir(), 'gatehouse-load-'));
  try {
    const file = join(folder, 'order.json');
    writeFileSync(file, JSON.stringify(order));
    const { stdout } = await pinned([process.execPath, program, file]);
    const report = JSON.parse(stdout) as LoadReport;
    const { 200: good = 0, ...others } = report.statuses;
    if (good === 0 || Object.keys(others).length > 0 || report.wrongBodies > 0) {
      throw new Error(`The load got unexpected responses: ${stdout}`);
    }
    return report;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function pinned([file = '', ...args]: string[]): Promise<{ stdout: string }> {
  const options = { maxBuffer: 10_000_000 };
  try {
    return await execute('taskset', ['-c', OTHER_CORES, file, ...args], options);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
      return execute(file, args, options);
    }
    throw error;
  }
}
