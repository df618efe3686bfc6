import { CannotListen, runProgram } from './common/program.js';
import { createLog } from './common/log.js';
import { environmentNames, readEnvironment } from './config/environment.js';
import { configurationWarnings } from './config/warnings.js';
import { DatabaseUnusable, withConnection } from './database/connection.js';
import { inspectWith } from './database/inspect.js';
import { databaseWarnings } from './database/warnings.js';
import { createApp } from './setup.js';
import { endOnSignal, reportFaults } from './shutdown.js';

await runProgram(async () => {
  const environment = readEnvironment();
  const log = createLog(environment);
  reportFaults(log);
  const warnings = configurationWarnings(environment, environmentNames());
  const physical = await withConnection(environment.DATABASE_URL, async (client) => {
    const inspected = await inspectWith(client, environment);
    warnings.push(...(await databaseWarnings(client, environment, inspected)));
    return inspected;
  });
  if (physical.faults.length > 0) throw new DatabaseUnusable(physical.faults.join('\n'));

  const app = await createApp({ environment, physical, log });
  for (const remark of physical.remarks) log.warn({ from: 'database' }, remark);
  for (const { event, message } of warnings) log.warn({ event }, message);
  endOnSignal(app, log);
  try {
    await app.listen(environment.PORT, environment.HOST);
  } catch (error) {
    // Open pools would keep the process.
    await app.close();
    throw new CannotListen(environment.HOST, environment.PORT, error);
  }
  log.info({ url: await app.getUrl() }, 'listening');
});
