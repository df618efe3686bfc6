import { ListenError, runProgram } from './cli/run-program.js';
import { createLogger } from './logging/logger.js';
import { environmentNames, readEnvironment } from './config/environment.js';
import { configurationWarnings } from './config/warnings.js';
import { UnusableDatabaseError, withConnection } from './database/connection.js';
import { inspectWith } from './database/inspect.js';
import { databaseWarnings } from './database/warnings.js';
import { createApp } from './app.js';
import { extensions } from './extensions.js';
import { shutDownOnSignal, logUncaughtErrors } from './shutdown.js';

await runProgram(async () => {
  const environment = readEnvironment();
  const log = createLogger(environment);
  logUncaughtErrors(log);
  const warnings = configurationWarnings(environment, environmentNames());
  const physical = await withConnection(environment.DATABASE_URL, async (client) => {
    const inspected = await inspectWith(client, environment);
    warnings.push(...(await databaseWarnings(client, environment, inspected)));
    return inspected;
  });
  if (physical.errors.length > 0) throw new UnusableDatabaseError(physical.errors.join('\n'));

  const app = await createApp({ environment, physical, log, extensions });
  for (const warning of physical.warnings) log.warn({ from: 'database' }, warning);
  for (const { event, message } of warnings) log.warn({ event }, message);
  shutDownOnSignal(app, log);
  try {
    await app.listen(environment.PORT, environment.HOST);
  } catch (error) {
    // Open connection pools would keep the process alive.
    await app.close();
    throw new ListenError(environment, error);
  }
  log.info({ url: await app.getUrl() }, 'listening');
});
