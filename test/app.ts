import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { NestExpressApplication } from '@nestjs/platform-express';
import pino, { type Logger } from 'pino';
import request from 'supertest';
import { parseEnvironment } from '../src/config/environment.js';
import { withConnection } from '../src/database/connection.js';
import { inspectWith } from '../src/database/inspect.js';
import { createApp } from '../src/setup.js';

export interface RunningApp {
  app: NestExpressApplication;
  url: string;
  /** supertest against the running server. */
  http: ReturnType<typeof request>;
  /** What it logged so far, parsed. */
  lines: Record<string, unknown>[];
  close(): Promise<void>;
}

/** The application as `main.ts` makes it, on a port of its own, with its log kept. */
export async function startApp(variables: Record<string, string>): Promise<RunningApp> {
  const environment = parseEnvironment({ NODE_ENV: 'test', HOST: '127.0.0.1', ...variables });
  const lines: Record<string, unknown>[] = [];
  const log: Logger = pino(
    { level: environment.LOG_LEVEL },
    { write: (line: string) => lines.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const physical = await withConnection(environment.DATABASE_URL, (client) =>
    inspectWith(client, environment),
  );
  const app = await createApp({ environment, physical, log });
  await app.listen(0, '127.0.0.1');
  const { port } = (app.getHttpServer() as Server).address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  return { app, url, http: request(url), lines, close: () => app.close() };
}
