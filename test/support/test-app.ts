import type { AddressInfo } from 'node:net';
import type { NestExpressApplication } from '@nestjs/platform-express';
import request from 'supertest';
import { type Extensions } from '../../src/extensions.js';
import { createLogger } from '../../src/logging/logger.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { inspectWith } from '../../src/database/inspect.js';
import { createDocument } from '../../src/openapi/document.js';
import { createApp } from '../../src/app.js';
import { extensions as noExtensions } from './no-extensions.js';
import { withDirectUrl } from './database.js';
import { encodeBody } from './encode-body.js';
import { type TestResponse, createOpenApiCheck } from './openapi-check.js';
import { addOutputSource, recordServer, registerDatabase } from './leak-detector.js';

export interface RunningApp {
  app: NestExpressApplication;
  url: string;
  /** supertest against the running server. */
  http: ReturnType<typeof request>;
  /** Sends a request, and throws if the response is not as the OpenAPI document describes it. */
  call(path: string, options?: CallOptions): Promise<TestResponse>;
  /** What it logged so far, parsed. */
  lines: Record<string, unknown>[];
  close(): Promise<void>;
}

export interface CallOptions {
  method?: string;
  token?: string;
  /** A `FormData`, `Blob`, `Buffer` or text is sent as it is, and any other value as JSON. */
  body?: unknown;
  headers?: Record<string, string>;
}

/**
 * The application as `main.ts` makes it, on a port of its own, with its log kept. Without
 * `extensions` it has only the routes of Gatehouse.
 */
export async function startApp(
  variables: Record<string, string>,
  extensions: Partial<Extensions> = {},
  prepare: (app: NestExpressApplication) => unknown = () => undefined,
): Promise<RunningApp> {
  const environment = parseEnvironment({
    NODE_ENV: 'test',
    HOST: '127.0.0.1',
    // Counted, but never too many.
    RATE_LIMIT_PER_MINUTE: '1000000',
    ...withDirectUrl(variables),
  });
  const lines: Record<string, unknown>[] = [];
  const written: string[] = [];
  const log = createLogger(environment, {
    write: (line) => {
      written.push(line);
      const parsed = JSON.parse(line) as Record<string, unknown>;
      lines.push(parsed);
      // Shows the reason for a response 500 next to the failed test.
      if (parsed['code'] === 'INTERNAL_ERROR' && 'err' in parsed) process.stderr.write(line);
    },
  });
  registerDatabase(environment.DATABASE_URL);
  addOutputSource('the log', () => written.splice(0).join(''));
  const physical = await withConnection(environment.DATABASE_URL, (client) =>
    inspectWith(client, environment),
  );
  const app = await createApp({
    environment,
    physical,
    log,
    extensions: { ...noExtensions, ...extensions },
  });
  prepare(app);
  recordServer(app.getHttpServer());
  await app.listen(0, '127.0.0.1');
  const { port } = app.getHttpServer().address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  const check = createOpenApiCheck(createDocument(app));
  return {
    app,
    url,
    http: request(url),
    lines,
    call: async (path, options = {}) => {
      const answer = await call(url + path, options);
      check(options.method ?? 'GET', path, answer);
      return answer;
    },
    close: () => app.close(),
  };
}

async function call(
  url: string,
  { method = 'GET', token, body, headers = {} }: CallOptions,
): Promise<TestResponse> {
  const encoded = body === undefined ? undefined : await encodeBody(body);
  const response = await fetch(url, {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(encoded && { 'content-type': encoded.type }),
      ...headers,
    },
    ...(encoded && { body: encoded.bytes }),
  });
  return { status: response.status, headers: response.headers, body: await read(response) };
}

/** Parses JSON. Text is a string, and any other content a `Buffer`. */
async function read(response: Response): Promise<unknown> {
  const bytes = Buffer.from(await response.arrayBuffer());
  if (bytes.length === 0) return undefined;
  const type = response.headers.get('content-type') ?? '';
  if (/[/+]json\b/.test(type)) return JSON.parse(bytes.toString());
  return type.startsWith('text/') ? bytes.toString() : bytes;
}
