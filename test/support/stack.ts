import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import type { ServerOptions } from '../../tools/better-auth-server.ts';
import { type RunningApp, startApp } from './test-app.js';
import { createDatabase, type TestDatabase } from './database.js';

export interface Stack {
  database: TestDatabase;
  /** Better-Auth as it comes: its tokens name no session. */
  auth: BetterAuth;
  /** The same Better-Auth with the one line that gives tokens a `sid`. */
  authWithSid: BetterAuth;
  gatehouse: RunningApp;
  end(): Promise<void>;
}

/** The whole system: one database, a real Better-Auth (with and without `sid`), and Gatehouse. */
export async function startStack(
  issuer: Partial<ServerOptions> = {},
  variables: Record<string, string> = {},
): Promise<Stack> {
  const database = await createDatabase();
  const auth = await startBetterAuth({ databaseUrl: database.url, ...issuer });
  const authWithSid = await startBetterAuth({
    databaseUrl: database.url,
    sid: true,
    publicOrigin: auth.origin,
    ...issuer,
  });
  const gatehouse = await startApp({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: auth.origin,
    ...variables,
  });
  return {
    database,
    auth,
    authWithSid,
    gatehouse,
    end: async () => {
      await gatehouse.close();
      await Promise.all([auth.stop(), authWithSid.stop()]);
      await database.drop();
    },
  };
}
