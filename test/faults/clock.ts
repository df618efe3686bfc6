import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { signUp } from '../support/users.ts';
import type { Fault } from './fault.ts';
import { only, statusesOf } from './load.ts';
import type { Stage } from './stage.ts';

/** Debian's `faketime`: between the process and the C library, so that Node itself believes it. */
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

/** The service's clock alone; PostgreSQL's and the issuer's stay. */
export const clockMoved: Fault = {
  name: 'clock of the service moved by an hour, forth and back',
  impossible: () =>
    findLibrary() ? undefined : 'libfaketime is not installed (apt-get install faketime)',
  seconds: 0,
  answers: [200, 401],
  start: async (stage) => {
    clock = join(stage.system.folder, 'clock');
    setClock('+0');
    await stage.serve({
      LD_PRELOAD: findLibrary() ?? '',
      FAKETIME_TIMESTAMP_FILE: clock,
      FAKETIME_NO_CACHE: '1',
      // Setting a clock moves the time of day, and no timer.
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
      // So that a token lives on after the ban has ended.
      JWT_LEEWAY_SECONDS: '300',
    });
    banned = await signUp(stage.system.auth);
    const expiresAt = new Date(Date.now() + 10 * 60_000).toISOString();
    // By hand: our own ban would end the session, and the token with it.
    await stage.system.sql(
      `update "user" set banned = true, "banReason" = 'ten minutes', "banExpires" = $2 where id = $1`,
      [banned.id, expiresAt],
    );
    await expectStatus(stage, 403, 'banned for ten minutes');
  },
  inject: async (stage) => {
    setClock('+12m');
    await sleep(200);
    await expectStatus(stage, 200, 'twelve minutes later the ban has ended');

    setClock('+1h');
    await sleep(200);
    stage.look();
    await expectStatus(stage, 401, 'an hour later the token has expired', 'AUTH_TOKEN_EXPIRED');
    await sleep(1000);
    const { reads } = stage.look();
    stage.expect(only(reads, [401]), `no token outlives it: ${statusesOf(reads)}`);

    setClock('-1h');
    await sleep(200);
    await expectStatus(
      stage,
      401,
      'an hour earlier the token is not yet true',
      'AUTH_TOKEN_INVALID',
    );
    await sleep(1000);
  },
  restore: () => setClock('+0'),
  afterwards: (stage) => expectStatus(stage, 403, 'at the right time the ban is in force'),
};

async function expectStatus(
  stage: Stage,
  status: number,
  what: string,
  code?: string,
): Promise<void> {
  const answer = await stage.ask('/api/v1/auth/me', { token: banned.token });
  const said =
    answer.status === 200 ? undefined : (JSON.parse(answer.body) as { code: string }).code;
  stage.expect(answer.status === status, `${what}: ${status}, not ${answer.status} ${said}`);
  if (code !== undefined) stage.expect(said === code, `${what}: ${code}, not ${said}`);
}
