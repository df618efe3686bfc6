import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
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
beforeEach(() => (gatehouse.lines.length = 0));

const GET = 'GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n';

/** Sends the requests in one write. Returns the statuses and whether the server disconnected. */
async function pipeline(requests: number, expected = requests) {
  let text = '';
  let isClosed = false;
  const socket = connect(Number(new URL(gatehouse.url).port), '127.0.0.1');
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  socket.on('error', () => undefined);
  socket.on('close', () => (isClosed = true));
  socket.write(GET.repeat(requests));
  const statuses = () =>
    [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status));
  for (let tries = 0; tries < 500 && !isClosed && statuses().length < expected; tries += 1) {
    await sleep(10);
  }
  await sleep(50);
  socket.destroy();
  return { statuses: statuses(), isClosed, text };
}

const requestLines = () => gatehouse.lines.filter(({ msg }) => msg === 'request');

describe('pipelined requests', () => {
  it('responds to up to 32 pipelined requests in their order', async () => {
    const { statuses, isClosed } = await pipeline(32);
    expect(statuses).toEqual(Array.from({ length: 32 }, () => 404));
    expect(isClosed).toBe(false);
  });

  it('rejects the 33rd pipelined request with a problem and closes the connection', async () => {
    const { statuses, isClosed, text } = await pipeline(100);
    expect(statuses).toEqual([...Array.from({ length: 32 }, () => 404), 429]);
    expect(isClosed).toBe(true);
    const [head = '', body = ''] = text.slice(text.indexOf('HTTP/1.1 429')).split('\r\n\r\n', 2);
    expect(head).toMatch(/^Connection: close/m);
    expect(head).toMatch(/^X-Content-Type-Options: nosniff/m);
    expect(JSON.parse(body)).toMatchObject({
      code: 'RATE_LIMITED',
      instance: '/nothing',
      detail: 'A connection is limited to 32 pipelined requests.',
    });
    expect(requestLines()).toHaveLength(33);
    expect(requestLines()).toContainEqual(expect.objectContaining({ code: 'RATE_LIMITED' }));
  });

  it('processes at most 33 of 50,000 pipelined requests and closes the connection', async () => {
    const { statuses, isClosed } = await pipeline(50_000);
    expect(statuses.length).toBeLessThanOrEqual(33);
    expect(isClosed).toBe(true);
    expect(requestLines().length).toBeLessThanOrEqual(33);
  });

  it('accepts any number of pipelined requests on one connection, 32 at a time', async () => {
    const port = Number(new URL(gatehouse.url).port);
    const socket = connect(port, '127.0.0.1');
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
    for (let round = 1; round <= 40; round += 1) {
      socket.write(GET.repeat(32));
      while (text.split('HTTP/1.1 404').length - 1 < round * 32) await sleep(1);
    }
    expect(text).not.toContain('HTTP/1.1 429');
    socket.destroy();
  });
});
