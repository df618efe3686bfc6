import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode, DevStackError } from './errors.ts';

/**
 * Keeps a second stack out of this folder while the first one runs, and answers the way to let
 * others in again. What a killed stack left behind does not count.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  await mkdir(folder, { recursive: true });
  const file = join(folder, 'lock');
  const ours = JSON.stringify({ pid: process.pid, born: await birthOf(process.pid) });
  for (;;) {
    try {
      await writeFile(file, ours, { flag: 'wx' });
      return () => rm(file, { force: true });
    } catch (fault) {
      if (errorCode(fault) !== 'EEXIST') throw fault;
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
  const [, pid, born] = /"pid":(\d+),"born":"(.*)"/.exec(text) ?? [];
  return pid && (await birthOf(Number(pid))) === born ? Number(pid) : undefined;
}

// A process number alone proves nothing, as it is given out again: on Linux its time of birth goes
// with it. A dead process that nobody has collected yet still has a number, and is dead.
async function birthOf(pid: number): Promise<string | undefined> {
  if (process.platform !== 'linux') return isAlive(pid) ? 'alive' : undefined;
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The name before the last bracket may hold anything.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (fault) {
    return errorCode(fault) === 'EPERM';
  }
}
