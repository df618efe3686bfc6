import type { Server } from 'node:http';
import type { NestApplicationContext } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import type { Logger } from 'pino';
import { RequestTracker } from './http/request-tracker.js';
import { flush } from './logging/logger.js';
import { stopExitingOnSignal } from './cli/run-program.js';
import { Environment } from './config/environment.js';

/**
 * On SIGTERM, `ready` responds with 503 while requests are still served. Terminus waits
 * `SHUTDOWN_DELAY_MS`, so that load balancers notice. Then the listener closes, requests in flight
 * finish, the pools close, and the process exits with 0.
 *
 * SIGINT, as from a terminal, skips the delay. A second signal exits immediately.
 */
export function shutDownOnSignal(app: NestExpressApplication, log: Logger): void {
  const tracker = app.get(RequestTracker);
  let isShuttingDown = false;
  const shutDown = async (signal: NodeJS.Signals): Promise<void> => {
    if (isShuttingDown) {
      log.warn({ signal }, 'second signal, exiting immediately');
      process.exit(1);
    }
    isShuttingDown = true;
    tracker.drain();
    log.info({ signal, inFlight: tracker.size }, 'shutting down');
    const delay = signal === 'SIGTERM' ? app.get(Environment).SHUTDOWN_DELAY_MS : 0;
    setTimeout(() => closeConnections(app, log), delay + IN_FLIGHT_TIMEOUT_MS).unref();
    // A pool does not close while its database is unresponsive.
    const timeout = new Promise((resolve) =>
      setTimeout(resolve, delay + IN_FLIGHT_TIMEOUT_MS + POOL_CLOSE_TIMEOUT_MS).unref(),
    );
    const failed = await Promise.race([
      timeout,
      closeFor(signal, app).catch((error: unknown) => {
        log.error({ err: error }, 'shutdown hook failed');
        return true;
      }),
    ]);
    log.info('shutdown complete');
    await flush(log);
    process.exit(failed === true ? 1 : 0);
  };
  stopExitingOnSignal();
  process.on('SIGTERM', (signal) => void shutDown(signal));
  process.on('SIGINT', (signal) => void shutDown(signal));
}

/** The signal decides whether Terminus waits. The interface of `app` omits this parameter. */
function closeFor(signal: NodeJS.Signals, app: NestExpressApplication): Promise<void> {
  const context: Pick<NestApplicationContext, 'close'> = app;
  return context.close(signal);
}

function closeConnections(app: NestExpressApplication, log: Logger): void {
  const { size } = app.get(RequestTracker);
  if (size > 0) log.warn({ inFlight: size }, 'closing connections with requests still in flight');
  const server: Server = app.getHttpServer();
  server.closeAllConnections();
}

const IN_FLIGHT_TIMEOUT_MS = 10_000;
const POOL_CLOSE_TIMEOUT_MS = 2000;

/**
 * Logs uncaught errors. An uncaught exception may leave any state inconsistent, so the process
 * exits and its supervisor restarts it.
 *
 * An unhandled rejection affects only its own request, so the process logs it and continues. By
 * default Node would exit, and one missing `await` would fail all other requests.
 */
export function logUncaughtErrors(log: Logger): void {
  const exit = async (error: unknown): Promise<void> => {
    log.fatal({ err: error }, 'uncaught exception, exiting');
    await flush(log);
    process.exit(1);
  };
  process.on('uncaughtException', (error) => void exit(error));
  process.on('unhandledRejection', (reason) => {
    log.error({ err: reason }, 'unhandled promise rejection');
  });
  // Node would write warnings as plain text to standard error, between lines of JSON.
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.warn({ err: warning }, warning.message));
}
