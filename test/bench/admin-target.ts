import type { BetterAuth } from '../../tools/better-auth.ts';
import { type AppProcess, type StartOptions, startProcess } from '../support/app-process.ts';
import { pin, SERVER_CORES } from './load.ts';
import { withClient } from './seed.ts';

/** A replica of Gatehouse without rate limits, and the token of an admin. */
export interface AdminTarget {
  url: string;
  token: string;
  product: AppProcess;
}

/** An admin, signed in at Better-Auth. */
export async function signUpAdmin(
  databaseUrl: string,
  auth: BetterAuth,
): Promise<{ id: string; session: string }> {
  const { user, sessionToken } = await auth.signUp({
    email: 'root@example.edu',
    password: 'a long password',
    name: 'Root',
  });
  await withClient(databaseUrl, (client) =>
    client.query(`update "user" set role = 'admin' where id = $1`, [user.id]),
  );
  return { id: user.id, session: sessionToken };
}

/** Starts Gatehouse on the core of the measured server. The caller stops it. */
export async function startTarget(
  databaseUrl: string,
  auth: BetterAuth,
  session: string,
  output: NonNullable<StartOptions['output']>,
): Promise<AdminTarget> {
  const token = await auth.tokenFor(session);
  const product = await startProcess(
    { DATABASE_URL: databaseUrl, BETTER_AUTH_URL: auth.origin, RATE_LIMIT_PER_MINUTE: '0' },
    { output },
  );
  await pin(product.child.pid, SERVER_CORES);
  return { url: product.url, token, product };
}
