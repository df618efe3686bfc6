import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type RunningApp, startApp } from '../support/test-app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { killProcesses, startProcess, until } from '../support/app-process.js';

let database: TestDatabase;
let gatehouse: RunningApp;

beforeAll(async () => {
  database = await createDatabase();
  gatehouse = await startApp({
    // Probes that succeed have their line at this level.
    LOG_LEVEL: 'debug',
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: 'http://127.0.0.1:9',
  });
});

afterAll(async () => {
  killProcesses();
  await gatehouse.close();
  await database.drop();
});

/** What a client gets that sends this and then waits, and when its connection is closed. */
function sendRaw(
  text: string,
  port = Number(new URL(gatehouse.url).port),
): Promise<{ status: number; head: string; body: string; ms: number }> {
  const began = performance.now();
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      const [head = '', body = ''] = answer.split('\r\n\r\n', 2);
      resolve({ status: Number(head.split(' ')[1]), head, body, ms: performance.now() - began });
    });
  });
}

const POST = 'POST /health HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n';

it.each([
  ['a header that is none', 'GET / HTTP/1.1\r\nHost: a\r\nnone\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a request line that is none', 'hello\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  [
    'two lengths',
    `${POST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`,
    400,
    'MALFORMED_REQUEST',
  ],
  [
    'headers that are too large',
    `GET / HTTP/1.1\r\nHost: a\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`,
    431,
    'HEADERS_TOO_LARGE',
  ],
])('answers %s with a problem and a line in the log', async (_what, text, status, code) => {
  const answer = await sendRaw(text);
  expect(answer.status).toBe(status);
  expect(answer.head).toMatch(/^Content-Type: application\/problem\+json/m);
  expect(answer.head).toMatch(/^Connection: close/m);
  expect(answer.head).toMatch(/^X-Content-Type-Options: nosniff/m);
  const problem = JSON.parse(answer.body) as { requestId: string };
  expect(problem).toMatchObject({ status, code, type: expect.stringContaining('urn:gatehouse:') });
  expect(gatehouse.lines).toContainEqual(
    expect.objectContaining({ requestId: problem.requestId, status, code, msg: 'request' }),
  );
});

describe('a target that is no path', () => {
  const ENDING = ' HTTP/1.1\r\nHost: a\r\nConnection: close\r\n';

  it.each([
    ['GET http://a/health/live?x=1', 200],
    ['GET x://y', 404],
    ['GET x://y/health/live', 200],
    ['OPTIONS *', 404],
  ])('is read as a whole URL, or as none: %s', async (request, status) => {
    const answer = await sendRaw(`${request}${ENDING}\r\n`);
    expect(answer.status).toBe(status);
    expect(answer.head).toMatch(/^X-Request-Id: /m);
    expect(answer.head).toMatch(/^Cache-Control: no-store/m);
  });

  it('with a body that cannot be read does not end the process', async () => {
    // Express alone would answer it, after us and in a listener.
    const text = `POST x://y${ENDING}Transfer-Encoding: chunked\r\n\r\nX\r\n`;
    const served = await startProcess({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: 'https://auth.example',
    });
    await sendRaw(text, served.port);
    await sleep(200);
    const { status } = await fetch(`${served.url}/health/live`);
    expect(status).toBe(200);
    await served.end('SIGINT');
  });
});

it.each([
  ['no host', 'GET /health/live HTTP/1.1\r\nConnection: close\r\n\r\n', 400],
  ['no host, which HTTP/1.0 need not', 'GET /health/live HTTP/1.0\r\n\r\n', 200],
  [
    'an expectation of its own',
    'GET /health/live HTTP/1.1\r\nHost: a\r\nExpect: much\r\nConnection: close\r\n\r\n',
    200,
  ],
])('answers a request with %s by itself, and not by Node', async (_what, text, status) => {
  gatehouse.lines.length = 0;
  const answer = await sendRaw(text);
  expect(answer.status).toBe(status);
  expect(answer.head).toMatch(/^X-Request-Id: /m);
  expect(answer.head).toMatch(/^X-Content-Type-Options: nosniff/m);
  expect(JSON.parse(answer.body)).toMatchObject(
    status === 200 ? { status: 'ok' } : { code: 'MALFORMED_REQUEST' },
  );
  await until(() => gatehouse.lines.filter(({ msg }) => msg === 'request').length, 1);
});

it('answers a request that can be read, and not what comes behind it and cannot', async () => {
  const answer = await sendRaw('GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\nX\r\n\r\n');
  expect(answer.head).toMatch(/^Connection: close/m);
  expect(JSON.parse(answer.body)).toMatchObject({ status: 'error' });
});

it('gives headers ten seconds and a whole request thirty', async () => {
  const [headers, body] = await Promise.all([
    sendRaw('GET / HTTP/1.1\r\nHost: a\r\n'),
    sendRaw(`${POST}Content-Length: 2\r\n\r\n{`),
  ]);
  expect([headers.status, body.status]).toEqual([408, 408]);
  expect(JSON.parse(headers.body)).toMatchObject({ code: 'REQUEST_TIMEOUT' });
  expect(JSON.parse(body.body)).toMatchObject({ code: 'REQUEST_TIMEOUT', instance: '/health' });
  expect(headers.ms).toBeGreaterThan(9500);
  expect(headers.ms).toBeLessThan(13_000);
  expect(body.ms).toBeGreaterThan(29_500);
  expect(body.ms).toBeLessThan(33_000);
}, 45_000);

it('keeps a connection open for longer than load balancers do', async () => {
  const answer = await fetch(`${gatehouse.url}/health/live`);
  expect(answer.headers.get('keep-alive')).toBe('timeout=75');
  await answer.text();
});
