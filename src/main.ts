import { CannotListen, runProgram } from './common/program.js';
import { createLog } from './common/log.js';
import { readEnvironment } from './config/environment.js';
import { DatabaseUnusable, withConnection } from './database/connection.js';
import { inspectWith } from './database/inspect.js';
import { createApp } from './setup.js';
import { endOnSignal, reportFaults } from './shutdown.js';
import { TOKEN_ONLY_WARNING } from './health/health.controller.js';

await runProgram(async () => {
  const environment = readEnvironment();
  const log = createLog(environment);
  reportFaults(log);
  const physical = await withConnection(environment.DATABASE_URL, (client) =>
    inspectWith(client, environment),
  );
  if (physical.faults.length > 0) throw new DatabaseUnusable(physical.faults.join('\n'));

  const app = await createApp({ environment, physical, log });
  for (const remark of physical.remarks) log.warn({ from: 'database' }, remark);
  if (environment.SESSION_BINDING === 'token-only') log.warn(TOKEN_ONLY_WARNING);
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
