import { MikroORM } from '@mikro-orm/postgresql';
import { ormOptions } from '../../mikro-orm.config.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { inspectWith } from '../../src/database/inspect.js';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import type { ServerOptions } from '../../tools/better-auth-server.ts';
import type { Extensions } from '../../src/extensions.js';
import { extensions as noExtensions } from './no-extensions.js';
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
  extensions: Partial<Extensions> = {},
): Promise<Stack> {
  const database = await createDatabase();
  if (extensions.migrations) await applyMigrations(database, extensions);
  const auth = await startBetterAuth({ databaseUrl: database.url, ...issuer });
  const authWithSid = await startBetterAuth({
    databaseUrl: database.url,
    sid: true,
    publicOrigin: auth.origin,
    ...issuer,
  });
  const gatehouse = await startApp(
    { DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin, ...variables },
    extensions,
  );
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

async function applyMigrations(database: TestDatabase, own: Partial<Extensions>): Promise<void> {
  const url = database.directUrl;
  const environment = parseEnvironment({ NODE_ENV: 'test', DATABASE_URL: url });
  const physical = await withConnection(url, (client) => inspectWith(client, environment));
  const extensions = { ...noExtensions, ...own };
  const orm = await MikroORM.init(ormOptions({ url, poolMax: 2, physical, extensions }));
  await orm.migrator.up();
  await orm.close(true);
}
