import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { type AppProcess, killProcesses, startProcess, until } from '../support/app-process.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { signUp, type TestUser } from '../support/users.js';

interface Span {
  scope: string;
  name: string;
  kind: number;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  attributes: unknown;
  status?: { code?: number; message?: string };
  events?: object[];
}

/** The part of OTLP that the test reads. */
interface Export {
  resourceSpans: { scopeSpans: { scope: { name: string }; spans: Omit<Span, 'scope'>[] }[] }[];
}

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const CALLER = 'b7ad6b7169203331';
const SERVER_KIND = 2;
const ERROR_CODE = 2;

let database: TestDatabase;
let auth: BetterAuth;
let receiver: Server;
let gatehouse: AppProcess;
let ada: TestUser;
const spans: Span[] = [];

beforeAll(async () => {
  database = await createDatabase();
  auth = await startBetterAuth({ databaseUrl: database.url });
  ada = await signUp(auth);
  receiver = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      receive(JSON.parse(Buffer.concat(chunks).toString()) as Export);
      response.setHeader('content-type', 'application/json').end('{}');
    });
  }).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const { port } = receiver.address() as AddressInfo;
  gatehouse = await startProcess({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: auth.origin,
    SHUTDOWN_DELAY_MS: '0',
    NODE_OPTIONS: `--import ${resolve('test/docs/tracing.mjs')}`,
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
    OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    OTEL_SERVICE_NAME: 'gatehouse',
    OTEL_METRICS_EXPORTER: 'none',
    OTEL_LOGS_EXPORTER: 'none',
    OTEL_BSP_SCHEDULE_DELAY: '100',
  });
});
afterAll(async () => {
  killProcesses();
  receiver.closeAllConnections();
  receiver.close();
  await auth.stop();
  await database.drop();
});

function receive({ resourceSpans }: Export): void {
  for (const { scopeSpans } of resourceSpans) {
    for (const { scope, spans: received } of scopeSpans) {
      spans.push(...received.map((span) => ({ ...span, scope: scope.name })));
    }
  }
}

const inTrace = () => spans.filter(({ traceId }) => traceId === TRACE);
const named = (name: string) => inTrace().find((span) => span.name === name);
const childrenOf = (parent: Span | undefined, scope: string) =>
  inTrace().filter((span) => span.parentSpanId === parent?.spanId && span.scope.endsWith(scope));

it('puts the spans of HTTP, PostgreSQL and Gatehouse into the trace of the caller', async () => {
  const response = await fetch(`${gatehouse.url}/api/v1/users/${ada.id}`, {
    method: 'PATCH',
    headers: {
      authorization: `Bearer ${ada.token}`,
      'content-type': 'application/json',
      traceparent: `00-${TRACE}-${CALLER}-01`,
    },
    body: JSON.stringify({ name: 'Augusta' }),
  });
  expect([response.status, await response.json()]).toMatchObject([200, { name: 'Augusta' }]);
  const findServer = () => inTrace().find(({ kind }) => kind === SERVER_KIND);
  await until(() => findServer() !== undefined, true, 20);

  const server = findServer();
  expect(server?.parentSpanId).toBe(CALLER);
  const [authenticate, transaction] = [named('authenticate'), named('transaction')];
  expect(authenticate?.parentSpanId).toBe(server?.spanId);
  expect(transaction?.parentSpanId).toBe(server?.spanId);
  expect(childrenOf(authenticate, 'instrumentation-pg').length).toBeGreaterThan(0);
  expect(childrenOf(transaction, 'instrumentation-pg').length).toBeGreaterThan(3);
  expect(spans.some(({ name }) => name === 'fetch key set')).toBe(true);
});

it('adds the trace to the log lines of the request', async () => {
  for (const message of ['auth.accepted', 'request']) {
    const isLogged = () =>
      gatehouse.lines().some(({ trace_id: id, msg }) => id === TRACE && msg === message);
    await until(isLogged, true);
  }
});

it('exports no token, email address or text of a query', () => {
  const exported = JSON.stringify(inTrace().map(({ attributes }) => attributes));
  expect(exported).toContain('update');
  expect(exported).toContain("= '?'");
  for (const secret of [ada.token.split('.')[2] ?? '', ada.email, 'Augusta', 'Ada Lovelace']) {
    expect(exported).not.toContain(secret);
  }
});

it('marks the span of a failure, without the message of its error', async () => {
  spans.splice(0);
  const response = await fetch(`${gatehouse.url}/api/v1/users/${ada.id}`, {
    method: 'PATCH',
    headers: {
      authorization: `Bearer ${ada.token}`,
      'content-type': 'application/json',
      'if-match': '"old"',
    },
    body: JSON.stringify({ name: 'Ada' }),
  });
  expect(response.status).toBe(412);
  const find = () => spans.find(({ name }) => name === 'transaction');
  await until(() => find() !== undefined, true, 20);
  expect([find()?.status, find()?.events]).toEqual([{ code: ERROR_CODE }, []]);
});

it('has no span below the one of HTTP for a cached token', async () => {
  const headers = { authorization: `Bearer ${ada.token}` };
  const isCached = ({ name, kind, spanId }: Span) =>
    name === 'GET' &&
    kind === SERVER_KIND &&
    !spans.some(({ parentSpanId }) => parentSpanId === spanId);
  spans.splice(0);
  await until(
    async () => {
      await (await fetch(`${gatehouse.url}/api/v1/auth/me`, { headers })).text();
      return spans.some(isCached);
    },
    true,
    20,
  );
});

it('has the same code in docs/operations.md and test/docs/tracing.mjs', () => {
  const code = readFileSync('test/docs/tracing.mjs', 'utf8');
  expect(readFileSync('docs/operations.md', 'utf8')).toContain(code.trim());
});
