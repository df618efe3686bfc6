import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { signUp } from '../support/users.ts';
import type { Fault } from './fault.ts';
import { only, statusesOf } from './load.ts';
import type { FaultContext } from './fault-context.ts';

/** Debian's `faketime`. It replaces clock functions of the C library, so Node uses its time. */
function findLibrary(): string | undefined {
  for (const folder of ['/usr/lib', '/usr/lib64', '/usr/local/lib']) {
    try {
      const paths = readdirSync(folder).map((name) => join(folder, name, 'faketime'));
      for (const path of [...paths, join(folder, 'faketime')]) {
        if (hasLibrary(path)) return join(path, LIBRARY);
      }
    } catch {
      continue;
    }
  }
  return undefined;
}

function hasLibrary(path: string): boolean {
  try {
    return readdirSync(path).includes(LIBRARY);
  } catch {
    return false;
  }
}

const LIBRARY = 'libfaketime.so.1';

let clock: string;
let banned: { id: string; token: string };

const setClock = (shift: string): void => writeFileSync(clock, shift);

/** Moves only the clock of the service, not those of PostgreSQL and the issuer. */
export const clockMoved: Fault = {
  name: 'clock of the service moved forward and back by an hour',
  impossible: () =>
    findLibrary() ? undefined : 'libfaketime is not installed (apt-get install faketime)',
  seconds: 0,
  answers: [200, 401],
  start: async (context) => {
    clock = join(context.system.folder, 'clock');
    setClock('+0');
    await context.serve({
      LD_PRELOAD: findLibrary() ?? '',
      FAKETIME_TIMESTAMP_FILE: clock,
      FAKETIME_NO_CACHE: '1',
      // A changed clock moves the time of day, but no timers.
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
      // The token must still be valid after the ban has expired.
      JWT_LEEWAY_SECONDS: '300',
    });
    banned = await signUp(context.system.auth);
    const expiresAt = new Date(Date.now() + 10 * 60_000).toISOString();
    // By SQL, because a ban by Gatehouse would also end the session of the token.
    await context.system.sql(
      `update "user" set banned = true, "banReason" = 'ten minutes', "banExpires" = $2 where id = $1`,
      [banned.id, expiresAt],
    );
    await expectStatus(context, 403, 'banned for ten minutes');
  },
  inject: async (context) => {
    setClock('+12m');
    await sleep(200);
    await expectStatus(context, 200, 'twelve minutes later the ban has ended');

    setClock('+1h');
    await sleep(200);
    context.takeTallies();
    await expectStatus(context, 401, 'an hour later the token has expired', 'AUTH_TOKEN_EXPIRED');
    await sleep(1000);
    const { reads } = context.takeTallies();
    context.expect(
      only(reads, [401]),
      `no token is accepted after it expires: ${statusesOf(reads)}`,
    );

    setClock('-1h');
    await sleep(200);
    await expectStatus(
      context,
      401,
      'an hour earlier the token is not yet valid',
      'AUTH_TOKEN_INVALID',
    );
    await sleep(1000);
  },
  restore: () => setClock('+0'),
  afterwards: (context) => expectStatus(context, 403, 'with the correct clock the ban is in force'),
};

async function expectStatus(
  context: FaultContext,
  status: number,
  what: string,
  code?: string,
): Promise<void> {
  const answer = await context.send('/api/v1/auth/me', { token: banned.token });
  const actualCode =
    answer.status === 200 ? undefined : (JSON.parse(answer.body) as { code: string }).code;
  context.expect(
    answer.status === status,
    `${what}: ${status}, not ${answer.status} ${actualCode}`,
  );
  if (code !== undefined)
    context.expect(actualCode === code, `${what}: ${code}, not ${actualCode}`);
}
