import type { Server } from 'node:http';
import { Injectable } from '@nestjs/common';
import type { NestExpressApplication } from '@nestjs/platform-express';
import type { NextFunction, Request, Response } from 'express';
import type { Logger } from 'pino';
import { Environment } from './config/environment.js';

/** Whether the service is about to end, and so wants its clients' connections to go elsewhere. */
@Injectable()
export class Draining {
  begun = false;

  /** A proxy that is told to close a connection does not send its next request into it. */
  readonly closeConnections = (_request: Request, response: Response, next: NextFunction): void => {
    if (this.begun) response.setHeader('Connection', 'close');
    next();
  };
}

/**
 * SIGTERM: `ready` says 503 while requests are still served, for as long as the load balancer needs to
 * notice (Terminus waits `SHUTDOWN_DELAY_MS`); then the listener closes, what is in flight finishes,
 * pools close, exit 0. SIGINT, a person at a terminal, skips the delay. A second signal ends it at once.
 */
export function endOnSignal(app: NestExpressApplication, log: Logger): void {
  const begin = (signal: NodeJS.Signals) => {
    const draining = app.get(Draining);
    if (draining.begun) process.exit(1);
    draining.begun = true;
    log.info({ signal }, 'ending');
    const delay = signal === 'SIGTERM' ? app.get(Environment).SHUTDOWN_DELAY_MS : 0;
    const server = app.getHttpServer() as Server;
    setTimeout(() => server.closeAllConnections(), delay + IN_FLIGHT_MS).unref();
    // A database that has stopped answering keeps its pool from closing.
    setTimeout(() => process.exit(0), delay + IN_FLIGHT_MS + POOLS_MS).unref();
  };
  process.on('SIGTERM', begin);
  process.on('SIGINT', begin);
  app.enableShutdownHooks(['SIGTERM', 'SIGINT'], { useProcessExit: true });
}

const IN_FLIGHT_MS = 10_000;
const POOLS_MS = 2000;
