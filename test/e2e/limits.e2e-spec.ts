import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type RunningApp, startApp } from '../support/test-app.js';
import { OpenBodyModule } from '../support/open-body.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { killProcesses, startProcess, until } from '../support/app-process.js';

let database: TestDatabase;
let gatehouse: RunningApp;

beforeAll(async () => {
  database = await createDatabase();
  gatehouse = await startApp(
    {
      // Successful probes are logged only at this level.
      LOG_LEVEL: 'debug',
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: 'http://127.0.0.1:9',
    },
    { modules: [OpenBodyModule] },
  );
});

afterAll(async () => {
  killProcesses();
  await gatehouse.close();
  await database.drop();
});

/** Sends the text. Returns the response, and the time until the connection closed. */
function sendRaw(
  text: string,
  port = Number(new URL(gatehouse.url).port),
): Promise<{ status: number; head: string; body: string; ms: number }> {
  const start = performance.now();
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      const [head = '', body = ''] = answer.split('\r\n\r\n', 2);
      resolve({ status: Number(head.split(' ')[1]), head, body, ms: performance.now() - start });
    });
  });
}

const POST = 'POST /api/v1/open-body HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n';

it.each([
  ['a malformed header', 'GET / HTTP/1.1\r\nHost: a\r\nnone\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  ['a malformed request line', 'hello\r\n\r\n', 400, 'MALFORMED_REQUEST'],
  [
    'two Content-Length headers',
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
])('returns a problem for %s and logs a line', async (_what, text, status, code) => {
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

describe('request target that is not a path', () => {
  const ENDING = ' HTTP/1.1\r\nHost: a\r\nConnection: close\r\n';

  it.each([
    ['GET http://a/health/live?x=1', 200],
    ['GET x://y', 302],
    ['GET x://y/health/live', 200],
    ['OPTIONS *', 404],
  ])('resolves the target of "%s" and returns %d', async (request, status) => {
    const answer = await sendRaw(`${request}${ENDING}\r\n`);
    expect(answer.status).toBe(status);
    expect(answer.head).toMatch(/^X-Request-Id: /m);
    expect(answer.head).toMatch(/^Cache-Control: no-store/m);
  });

  it('keeps running after an unreadable body for a target that is not a path', async () => {
    // Express would respond after Gatehouse has, in an event listener.
    const text = `POST x://y${ENDING}Transfer-Encoding: chunked\r\n\r\nX\r\n`;
    const app = await startProcess({
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: 'https://auth.example',
    });
    await sendRaw(text, app.port);
    await sleep(200);
    const { status } = await fetch(`${app.url}/health/live`);
    expect(status).toBe(200);
    await app.end('SIGINT');
  });
});

it.each([
  ['no Host header', 'GET /health/live HTTP/1.1\r\nConnection: close\r\n\r\n', 400],
  ['no Host header over HTTP/1.0', 'GET /health/live HTTP/1.0\r\n\r\n', 200],
  [
    'an unknown expectation',
    'GET /health/live HTTP/1.1\r\nHost: a\r\nExpect: much\r\nConnection: close\r\n\r\n',
    200,
  ],
])(
  'handles a request with %s itself and does not leave it to Node',
  async (_what, text, status) => {
    gatehouse.lines.length = 0;
    const answer = await sendRaw(text);
    expect(answer.status).toBe(status);
    expect(answer.head).toMatch(/^X-Request-Id: /m);
    expect(answer.head).toMatch(/^X-Content-Type-Options: nosniff/m);
    expect(JSON.parse(answer.body)).toMatchObject(
      status === 200 ? { status: 'ok' } : { code: 'MALFORMED_REQUEST' },
    );
    await until(() => gatehouse.lines.filter(({ msg }) => msg === 'request').length, 1);
  },
);

it('responds to a valid request but not to invalid data behind it', async () => {
  const answer = await sendRaw('GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\nX\r\n\r\n');
  expect(answer.head).toMatch(/^Connection: close/m);
  expect(JSON.parse(answer.body)).toMatchObject({ status: 'error' });
});

it('returns a problem for the unreadable body of the second of two pipelined requests', async () => {
  gatehouse.lines.length = 0;
  const socket = connect(Number(new URL(gatehouse.url).port), '127.0.0.1');
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const closed = new Promise((resolve) => socket.on('close', resolve));
  const head = 'GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n';
  socket.write(`${head}${POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n`);
  await until(() => text.includes('"status":"ok"'), true);
  socket.write('X\r\n');
  await closed;
  expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 400']);
  const [, requestId] = /"requestId":"([^"]+)"/.exec(text) ?? [];
  expect(gatehouse.lines).toContainEqual(
    expect.objectContaining({ requestId, method: 'POST', code: 'MALFORMED_REQUEST' }),
  );
});

it('times out the headers after ten seconds and the whole request after thirty', async () => {
  const [headers, body] = await Promise.all([
    sendRaw('GET / HTTP/1.1\r\nHost: a\r\n'),
    sendRaw(`${POST}Content-Length: 2\r\n\r\n{`),
  ]);
  expect([headers.status, body.status]).toEqual([408, 408]);
  expect(JSON.parse(headers.body)).toMatchObject({ code: 'REQUEST_TIMEOUT' });
  expect(JSON.parse(body.body)).toMatchObject({
    code: 'REQUEST_TIMEOUT',
    instance: '/api/v1/open-body',
  });
  expect(headers.ms).toBeGreaterThan(9500);
  expect(headers.ms).toBeLessThan(25_000);
  expect(body.ms).toBeGreaterThan(29_500);
  expect(body.ms).toBeLessThan(60_000);
}, 90_000);

it('keeps an idle connection open for longer than load balancers do', async () => {
  const answer = await fetch(`${gatehouse.url}/health/live`);
  expect(answer.headers.get('keep-alive')).toBe('timeout=75');
  await answer.text();
});
