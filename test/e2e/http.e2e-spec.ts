import { type IncomingMessage, request as rawRequest, type ServerResponse } from 'node:http';
import express, { type Express } from 'express';
import { HttpAdapter } from '../../src/http/http-adapter.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { OpenBodyModule } from '../support/open-body.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

let database: TestDatabase;
let gatehouse: RunningApp;

beforeAll(async () => {
  database = await createDatabase();
  gatehouse = await startApp(
    {
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: 'http://127.0.0.1:9',
      CORS_ORIGINS: 'https://app.example.com',
    },
    { modules: [OpenBodyModule] },
  );
});

afterAll(async () => {
  await gatehouse.close();
  await database.drop();
});

it('creates requests and responses with the prototypes of Express before Express handles them', async () => {
  const app: Express = gatehouse.app.getHttpAdapter().getInstance();
  const prototypes: object[] = [];
  gatehouse.app
    .getHttpServer()
    .prependOnceListener('request', (request: IncomingMessage, response: ServerResponse) => {
      prototypes.push(Object.getPrototypeOf(request), Object.getPrototypeOf(response));
    });
  await fetch(`${gatehouse.url}/health/live`);
  expect(prototypes[0]).toBe(app.request);
  expect(prototypes[1]).toBe(app.response);
});

it('keeps the settings of its Express app when another app mounts it', () => {
  const adapter = new HttpAdapter();
  adapter.initHttpServer();
  const app = adapter.getInstance<Express>();
  express().use(app);
  expect([Reflect.get(app.request, 'app'), Reflect.get(app.response, 'app')]).toEqual([app, app]);
});

it('refuses TLS options instead of serving plain HTTP', () => {
  expect(() => new HttpAdapter().initHttpServer({ httpsOptions: {} })).toThrow('TLS');
});

describe('error responses', () => {
  it.each([
    ['an unknown route', 'GET', '/nothing/here', 404, 'NOT_FOUND'],
    ['an unknown route below the API', 'GET', '/api/v1/nothing', 404, 'NOT_FOUND'],
    ['a malformed path', 'GET', '/api/v1/%zz', 404, 'NOT_FOUND'],
    ['a method that the path does not support', 'DELETE', '/health', 405, 'METHOD_NOT_ALLOWED'],
  ])('returns a problem for %s', async (_what, method, path, status, code) => {
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

  it.each([
    ['DELETE', '/health', 'GET, HEAD'],
    ['PUT', '/health/', 'GET, HEAD'],
    ['POST', '/api/v1/docs/swagger-ui.css', 'GET, HEAD'],
    ['POST', '/api/v1/users/42', 'GET, HEAD, PATCH'],
    ['GET', '/api/v1/users/42/ban', 'DELETE, POST'],
    ['HEAD', '/api/v1/users/42/ban', 'DELETE, POST'],
  ])('lists the supported methods of %s %s in Allow', async (method, path, allow) => {
    const { status, headers } = await fetch(gatehouse.url + path, { method });
    expect([status, headers.get('allow')]).toEqual([405, allow]);
  });

  it('logs no route for a method that the path does not support', async () => {
    await gatehouse.http.post('/api/v1/users/42').set('X-Request-Id', 'no-route');
    const line = gatehouse.lines.find(({ clientRequestId }) => clientRequestId === 'no-route');
    expect(line).toMatchObject({ status: 405, route: null, code: 'METHOD_NOT_ALLOWED' });
  });

  it.each([
    ['broken JSON', '{"a":', 'application/json', 400, 'MALFORMED_REQUEST'],
    ['a body that is not JSON', 'a=b', 'text/plain', 415, 'UNSUPPORTED_MEDIA_TYPE'],
    [
      'a body in another character set',
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
    const answer = await gatehouse.http
      .post('/api/v1/open-body')
      .set('Content-Type', type)
      .send(body);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  });

  it('keeps the query out of the problem and out of the log', async () => {
    const answer = await gatehouse.http.get('/nothing?token=s3cr3t');
    expect(JSON.stringify(answer.body) + JSON.stringify(gatehouse.lines)).not.toContain('s3cr3t');
  });
});

describe('request id', () => {
  it('returns the request id of the client when it is well formed', async () => {
    await gatehouse.http
      .get('/health/live')
      .set('X-Request-Id', 'trace-42.a:b')
      .expect('X-Request-Id', 'trace-42.a:b');
  });

  it('identifies a problem by its own request id and logs that of the client beside it', async () => {
    const { body } = await gatehouse.http.get('/nothing').set('X-Request-Id', 'trace-43');
    expect(body.requestId).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
    const lines = gatehouse.lines.filter((line) => line['requestId'] === body.requestId);
    expect(lines.map((line) => line['clientRequestId'])).toEqual(['trace-43']);
  });

  it.each(['', 'with space', '<script>', 'a'.repeat(129)])(
    'replaces the malformed request id %j by its own',
    async (id) => {
      const answer = await gatehouse.http.get('/health/live').set('X-Request-Id', id);
      expect(answer.headers['x-request-id']).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/);
    },
  );
});

describe('request log', () => {
  it('logs one line per request with the route and without query, token or cookie', async () => {
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
  it('allows the configured origin with credentials and exposes the headers it needs', async () => {
    const answer = await gatehouse.http
      .get('/health/live')
      .set('Origin', 'https://app.example.com');
    expect(answer.headers).toMatchObject({
      'access-control-allow-origin': 'https://app.example.com',
      'access-control-allow-credentials': 'true',
      'access-control-expose-headers': expect.stringMatching(/ETag.*X-Request-Id.*RateLimit/),
    });
  });

  it('does not allow another origin', async () => {
    const answer = await gatehouse.http.get('/health/live').set('Origin', 'https://evil.example');
    expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  });

  it('returns the methods and headers of the API for a preflight', async () => {
    const answer = await gatehouse.http
      .options('/api/v1/users/1')
      .set('Origin', 'https://app.example.com')
      .set('Access-Control-Request-Method', 'PATCH');
    expect(answer.status).toBe(204);
    expect(answer.headers['access-control-allow-methods']).toBe('GET,HEAD,POST,PUT,PATCH,DELETE');
    expect(answer.headers['access-control-allow-headers']).toContain('If-Match');
  });
});

describe('security headers', () => {
  it('sends headers that protect the browser and do not name the framework', async () => {
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

it('parses a query into plain strings, never into objects', async () => {
  const { status } = await gatehouse.http.get('/health/live?a[b]=c&__proto__[x]=1');
  expect(status).toBe(200);
  expect(({} as Record<string, unknown>)['x']).toBeUndefined();
});

it('returns 431 for a request whose headers are too large', async () => {
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
