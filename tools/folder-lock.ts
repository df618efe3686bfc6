import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode, DevStackError } from './errors.ts';

/**
 * Locks the folder, so that only one stack uses it, and returns the function that unlocks it. The
 * lock of a killed stack does not count.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  await mkdir(folder, { recursive: true });
  const file = join(folder, 'lock');
  const ours = JSON.stringify({ pid: process.pid, startedAt: await startTimeOf(process.pid) });
  for (;;) {
    try {
      await writeFile(file, ours, { flag: 'wx' });
      return () => rm(file, { force: true });
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
    }
    const pid = await livingOwner(file);
    if (pid) {
      throw new DevStackError(
        `A stack already runs on ${folder} (process ${pid}): stop it, or start this one with another DATA_DIR, PORT and BETTER_AUTH_PORT.`,
      );
    }
    await rm(file, { force: true });
  }
}

async function livingOwner(file: string): Promise<number | undefined> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const [, pid, startedAt] = /"pid":(\d+),"startedAt":"(.*)"/.exec(text) ?? [];
  return pid && (await startTimeOf(Number(pid))) === startedAt ? Number(pid) : undefined;
}

// The system reuses process ids, so on Linux the lock also holds the start time. A zombie has an
// id, but it is dead.
async function startTimeOf(pid: number): Promise<string | undefined> {
  if (process.platform !== 'linux') return isAlive(pid) ? 'alive' : undefined;
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The name before the last bracket may contain any character.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}
