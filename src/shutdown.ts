import type { Server } from 'node:http';
import type { NestExpressApplication } from '@nestjs/platform-express';
import type { Logger } from 'pino';
import { RequestTracker } from './http/request-tracker.js';
import { flush } from './logging/logger.js';
import { stopExitingOnSignal } from './cli/run-program.js';
import { Environment } from './config/environment.js';

/**
 * SIGTERM: `ready` says 503 while requests are still served, for as long as the load balancer needs to
 * notice (Terminus waits `SHUTDOWN_DELAY_MS`); then the listener closes, what is in flight finishes,
 * pools close, exit 0. SIGINT, a person at a terminal, skips the delay. A second signal ends it at once.
 */
export function shutDownOnSignal(app: NestExpressApplication, log: Logger): void {
  const inFlight = app.get(RequestTracker);
  let begun = false;
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (begun) {
      log.warn({ signal }, 'ending at once');
      process.exit(1);
    }
    begun = true;
    inFlight.drain();
    log.info({ signal, inFlight: inFlight.size }, 'ending');
    const delay = signal === 'SIGTERM' ? app.get(Environment).SHUTDOWN_DELAY_MS : 0;
    setTimeout(() => cut(app, log), delay + IN_FLIGHT_MS).unref();
    // A database that has stopped answering keeps its pool from closing.
    const late = new Promise((resolve) =>
      setTimeout(resolve, delay + IN_FLIGHT_MS + POOLS_MS).unref(),
    );
    const failed = await Promise.race([
      late,
      closeFor(signal, app).catch((error: unknown) => {
        log.error({ err: error }, 'a part did not close');
        return true;
      }),
    ]);
    log.info('ended');
    await flush(log);
    process.exit(failed === true ? 1 : 0);
  };
  stopExitingOnSignal();
  process.on('SIGTERM', (signal) => void end(signal));
  process.on('SIGINT', (signal) => void end(signal));
}

/** By which Terminus knows whether to wait. Nest takes the signal, though its types do not say so. */
function closeFor(signal: NodeJS.Signals, app: NestExpressApplication): Promise<void> {
  return (app as { close(signal: string): Promise<void> }).close(signal);
}

function cut(app: NestExpressApplication, log: Logger): void {
  const { size } = app.get(RequestTracker);
  if (size > 0) log.warn({ inFlight: size }, 'requests that would not end are cut');
  const server: Server = app.getHttpServer();
  server.closeAllConnections();
}

const IN_FLIGHT_MS = 10_000;
const POOLS_MS = 2000;

/**
 * A fault that nobody caught. A thrown one may have left anything half done, so the process says what it
 * was and ends, for its supervisor to start it anew. A rejected promise that nobody looked at leaves
 * nothing half done but its own request: it is said, and the other requests are served on. Left to Node,
 * one forgotten `await` would end them all.
 */
export function logUncaughtErrors(log: Logger): void {
  const end = async (error: unknown): Promise<void> => {
    log.fatal({ err: error }, 'a fault that nobody caught: ending');
    await flush(log);
    process.exit(1);
  };
  process.on('uncaughtException', (error) => void end(error));
  process.on('unhandledRejection', (reason) => {
    log.error({ err: reason }, 'a rejected promise that nobody looked at');
  });
  // Node's own way is plain text on standard error, between lines of JSON.
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.warn({ err: warning }, warning.message));
}
