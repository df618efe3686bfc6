import { type IncomingMessage, request as rawRequest, type ServerResponse } from 'node:http';
import express, { type Express } from 'express';
import { HttpAdapter } from '../../src/http/http-adapter.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

let database: TestDatabase;
let gatehouse: RunningApp;

beforeAll(async () => {
  database = await createDatabase();
  gatehouse = await startApp({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: 'http://127.0.0.1:9',
    CORS_ORIGINS: 'https://app.example.com',
  });
});

afterAll(async () => {
  await gatehouse.close();
  await database.drop();
});

it("has requests and answers that are Express' own before Express has them", async () => {
  const app: Express = gatehouse.app.getHttpAdapter().getInstance();
  const born: object[] = [];
  gatehouse.app
    .getHttpServer()
    .prependOnceListener('request', (request: IncomingMessage, response: ServerResponse) => {
      born.push(Object.getPrototypeOf(request), Object.getPrototypeOf(response));
    });
  await fetch(`${gatehouse.url}/health/live`);
  expect(born[0]).toBe(app.request);
  expect(born[1]).toBe(app.response);
});

it('keeps its own settings where it is mounted in another app', () => {
  const adapter = new HttpAdapter();
  adapter.initHttpServer();
  const app = adapter.getInstance<Express>();
  express().use(app);
  expect([Reflect.get(app.request, 'app'), Reflect.get(app.response, 'app')]).toEqual([app, app]);
});

it('does not speak HTTP where somebody asked for TLS', () => {
  expect(() => new HttpAdapter().initHttpServer({ httpsOptions: {} })).toThrow('TLS');
});

describe('errors', () => {
  it.each([
    ['an unknown route', 'GET', '/nothing/here', 404, 'NOT_FOUND'],
    ['an unknown route below the API', 'GET', '/api/v1/nothing', 404, 'NOT_FOUND'],
    ['a path that is not well formed', 'GET', '/api/v1/%zz', 404, 'NOT_FOUND'],
    ['a method that the path does not have', 'DELETE', '/health', 405, 'METHOD_NOT_ALLOWED'],
  ])('answers %s with a problem', async (_what, method, path, status, code) => {
    const answer = await fetch(gatehouse.url + path, { method });
    expect(answer.status).toBe(status);
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    expect(await answer.json()).toEqual({
      type: `urn:gatehouse:problem:${code.toLowerCase().replaceAll('_', '-')}`,
      title: expect.any(String),
      detail: expect.any(String),
      status,
      instance: path,
      code,
      requestId: answer.headers.get('x-request-id'),
    });
  });

  it('names the methods that a path does have', async () => {
    await gatehouse.http.delete('/health').expect('Allow', 'GET, HEAD');
  });

  it.each([
    ['JSON that is broken', '{"a":', 'application/json', 400, 'MALFORMED_REQUEST'],
    ['a body of another type', 'a=b', 'text/plain', 415, 'UNSUPPORTED_MEDIA_TYPE'],
    [
      'a body in a character set of its own',
      '{}',
      'application/json; charset=latin1',
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    ],
    [
      'a body over 16 KB',
      JSON.stringify('a'.repeat(16_384)),
      'application/json',
      413,
      'PAYLOAD_TOO_LARGE',
    ],
  ])('refuses %s', async (_what, body, type, status, code) => {
    const answer = await gatehouse.http.post('/health').set('Content-Type', type).send(body);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  });

  it('keeps a query out of the problem and out of the log', async () => {
    const answer = await gatehouse.http.get('/nothing?token=s3cr3t');
    expect(JSON.stringify(answer.body) + JSON.stringify(gatehouse.lines)).not.toContain('s3cr3t');
  });
});

describe('the request id', () => {
  it('of the answer is the client’s where it is sane', async () => {
    await gatehouse.http
      .get('/health/live')
      .set('X-Request-Id', 'trace-42.a:b')
      .expect('X-Request-Id', 'trace-42.a:b');
  });

  it('of a problem is the server’s, under which the log has the client’s', async () => {
    const { body } = await gatehouse.http.get('/nothing').set('X-Request-Id', 'trace-43');
    expect(body.requestId).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
    const lines = gatehouse.lines.filter((line) => line['requestId'] === body.requestId);
    expect(lines.map((line) => line['clientRequestId'])).toEqual(['trace-43']);
  });

  it.each(['', 'with space', '<script>', 'a'.repeat(129)])('is ours where it is %j', async (id) => {
    const answer = await gatehouse.http.get('/health/live').set('X-Request-Id', id);
    expect(answer.headers['x-request-id']).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
  });
});

describe('the log', () => {
  it('has one line for each request, with the route and without what was sent along', async () => {
    await gatehouse.http
      .get('/api/v1/auth/me?q=1')
      .set('X-Request-Id', 'one-line')
      .set('Authorization', 'Bearer abc.def.ghi')
      .set('Cookie', 'better-auth.session_token=xyz');
    const lines = gatehouse.lines.filter(
      ({ msg, clientRequestId }) => msg === 'request' && clientRequestId === 'one-line',
    );
    expect(lines).toEqual([
      {
        level: 'info',
        time: expect.any(String),
        requestId: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f-]{27}$/),
        clientRequestId: 'one-line',
        method: 'GET',
        route: '/api/v1/auth/me',
        status: 401,
        ms: expect.any(Number),
        code: 'AUTH_TOKEN_INVALID',
        msg: 'request',
      },
    ]);
    expect(JSON.stringify(gatehouse.lines)).not.toMatch(/abc\.def|xyz/);
  });
});

describe('cross-origin requests', () => {
  it('lets the listed origin in, with credentials, and shows it the headers it needs', async () => {
    const answer = await gatehouse.http
      .get('/health/live')
      .set('Origin', 'https://app.example.com');
    expect(answer.headers).toMatchObject({
      'access-control-allow-origin': 'https://app.example.com',
      'access-control-allow-credentials': 'true',
      'access-control-expose-headers': expect.stringMatching(/ETag.*X-Request-Id.*RateLimit/),
    });
  });

  it('tells another origin nothing', async () => {
    const answer = await gatehouse.http.get('/health/live').set('Origin', 'https://evil.example');
    expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  });

  it('answers a preflight with the methods and headers of the API', async () => {
    const answer = await gatehouse.http
      .options('/api/v1/users/1')
      .set('Origin', 'https://app.example.com')
      .set('Access-Control-Request-Method', 'PATCH');
    expect(answer.status).toBe(204);
    expect(answer.headers['access-control-allow-methods']).toBe('GET,HEAD,POST,PUT,PATCH,DELETE');
    expect(answer.headers['access-control-allow-headers']).toContain('If-Match');
  });
});

describe('headers', () => {
  it('protect the browser and do not name the framework', async () => {
    const { headers } = await gatehouse.http.get('/health/live');
    expect(headers).toMatchObject({
      'content-security-policy': "default-src 'none';frame-ancestors 'none'",
      'strict-transport-security': expect.any(String),
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'cache-control': 'no-store',
    });
    expect(headers).not.toHaveProperty('x-powered-by');
  });
});

it('reads a query as plain strings, never as objects', async () => {
  const { status } = await gatehouse.http.get('/health/live?a[b]=c&__proto__[x]=1');
  expect(status).toBe(200);
  expect(({} as Record<string, unknown>)['x']).toBeUndefined();
});

it('answers a request whose headers are too large without a stack trace', async () => {
  const { port } = new URL(gatehouse.url);
  const status = await new Promise((resolve) => {
    rawRequest({
      port,
      host: '127.0.0.1',
      path: '/health',
      headers: { 'x-big': 'a'.repeat(20_000) },
    })
      .on('response', (response) => resolve(response.resume().statusCode))
      .end();
  });
  expect(status).toBe(431);
});
