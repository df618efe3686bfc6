import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';
import { OpenBodyModule } from '../support/open-body.js';
import { until } from '../support/app-process.js';

let stack: Stack;
let ada: TestUser;

beforeAll(async () => {
  stack = await startStack({}, { BODY_LIMIT: '4096' }, { modules: [OpenBodyModule] });
  ada = await signUp(stack.authWithSid);
});
afterAll(() => stack.end());

const port = () => Number(new URL(stack.gatehouse.url).port);

/**
 * Sends the parts one after the other, and `afterAnswer` once a response has begun.
 * Returns all that arrives until the connection closes.
 */
async function sendParts(parts: (string | Buffer)[], afterAnswer: string[] = []): Promise<string> {
  let answer = '';
  const socket = connect(port(), '127.0.0.1');
  const failures: string[] = [];
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
  socket.on('error', (error: NodeJS.ErrnoException) => failures.push(error.code ?? ''));
  const closed = new Promise((resolve) => socket.on('close', resolve));
  for (const part of parts) socket.write(part);
  const untilAnswered = async () => {
    for (let attempt = 0; answer === '' && attempt < 200; attempt += 1) await sleep(10);
  };
  if (afterAnswer.length > 0) await untilAnswered();
  for (const part of afterAnswer) socket.write(part);
  await closed;
  return [answer, ...failures].join('\n');
}

const POST = 'POST /api/v1/open-body HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n';
const NEXT = 'GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n';

const inChunks = (bytes: number, count: number) =>
  `${POST}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n` +
  `2\r\n{}\r\n${`${bytes.toString(16)}\r\n${' '.repeat(bytes)}\r\n`.repeat(count)}0\r\n\r\n`;

describe('body size', () => {
  it('refuses a body over BODY_LIMIT with a problem that names the limit', async () => {
    const fitting = await stack.gatehouse.http
      .post('/api/v1/open-body')
      .set('Content-Type', 'application/json')
      .send(JSON.stringify({ a: 'a'.repeat(4096 - 8) }));
    expect(fitting.status).toBe(200);
    const answer = await stack.gatehouse.http
      .post('/api/v1/open-body')
      .set('Content-Type', 'application/json')
      .send(JSON.stringify({ a: 'a'.repeat(4096 - 7) }));
    expect(answer.status).toBe(413);
    expect(answer.body).toMatchObject({
      code: 'PAYLOAD_TOO_LARGE',
      detail: 'The body is limited to 4096 bytes.',
    });
  });

  it('refuses a body by its Content-Length before the body arrives', async () => {
    const answer = await sendParts(
      [`${POST}Content-Length: 5000\r\n\r\n`],
      ['a'.repeat(5000), NEXT],
    );
    expect(answer).toMatch(/^HTTP\/1.1 413 /);
    // Gatehouse has read the rest of the body, so the connection stays usable.
    expect(answer).toContain('HTTP/1.1 200 ');
  });

  it('refuses a chunked body at the first byte over the limit, before the body ends', async () => {
    const chunk = `1001\r\n${'a'.repeat(4097)}\r\n`;
    const answer = await sendParts(
      [`${POST}Transfer-Encoding: chunked\r\n\r\n${chunk}`],
      ['0\r\n\r\n', NEXT],
    );
    expect(answer).toMatch(/^HTTP\/1.1 413 /);
    expect(answer).toContain('HTTP/1.1 200 ');
  });

  it.each([
    [
      'a body with Content-Length',
      `${POST}Content-Length: 100000000\r\n\r\n`,
      'a'.repeat(4_000_000),
    ],
    [
      'a chunked body',
      `${POST}Transfer-Encoding: chunked\r\n\r\n`,
      `10000\r\n${'a'.repeat(65_536)}\r\n`.repeat(60),
    ],
    [
      'the body of a preflight',
      'OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n',
      'a'.repeat(4_000_000),
    ],
  ])(
    'closes the connection of a client that keeps sending %s over the limit',
    async (_how, head, body) => {
      const answer = await sendParts([head, body.slice(0, 70_000)], [body]);
      expect(answer).toMatch(/^HTTP\/1.1 4\d\d /);
    },
  );

  it('accepts many chunks of 64 bytes but refuses many chunks of one byte', async () => {
    expect(await sendParts([inChunks(64, 60)])).toContain('"received":{}');
    expect(await sendParts([inChunks(1, 100)])).toContain('"received":{}');
    const refused = await sendParts([inChunks(1, 1000)]);
    expect(refused).toMatch(/^HTTP\/1.1 413 /);
    expect(refused).toContain('The body has too many chunks smaller than 64 bytes.');
  });

  it('closes the connection of a client that does not send the body it announced', async () => {
    const answer = await sendParts([`${POST}Content-Length: 5000\r\n\r\n`, 'a']);
    expect(answer).toMatch(/^HTTP\/1.1 413 /);
  });
});

describe('body that turns out malformed after an early response', () => {
  const CHUNKED = 'Transfer-Encoding: chunked\r\n\r\n';
  const TEXT = 'POST /api/v1/open-body HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n';
  const answersTo = async (parts: string[], afterAnswer: string[]) =>
    (await sendParts(parts, afterAnswer)).match(/HTTP\/1\.1 \d+/g);

  it.each([
    ['415', `${TEXT}${CHUNKED}`],
    ['413', `${POST}${CHUNKED}1001\r\n${'a'.repeat(4097)}\r\n`],
  ])('ends the connection without a second response after a %s', async (status, part) => {
    expect(await answersTo([part], ['zz\r\n'])).toEqual([`HTTP/1.1 ${status}`]);
  });

  it('responds to a malformed request that follows a complete body', async () => {
    const answers = await answersTo([`${TEXT}${CHUNKED}`], ['0\r\n\r\nmalformed\r\n\r\n']);
    expect(answers).toEqual(['HTTP/1.1 415', 'HTTP/1.1 400']);
  });
});

describe('content coding', () => {
  it.each([
    ['gzip', gzipSync('{}')],
    ['br', brotliCompressSync('{}')],
    ['deflate', Buffer.from('{}')],
    ['zstd', Buffer.from('{}')],
    ['identity, gzip', gzipSync('{}')],
    ['GZIP', gzipSync('{}')],
  ])('refuses a body with the content coding %s without reading it', async (coding, body) => {
    const answer = await fetch(`${stack.gatehouse.url}/api/v1/open-body`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-encoding': coding },
      body,
    });
    expect([answer.status, answer.headers.get('accept-encoding')]).toEqual([415, 'identity']);
    expect(await answer.json()).toMatchObject({
      code: 'UNSUPPORTED_MEDIA_TYPE',
      detail: expect.stringContaining('Compressed bodies are not accepted'),
    });
  });

  it('accepts a body with the content coding identity', async () => {
    const answer = await stack.gatehouse.http
      .post('/api/v1/open-body')
      .set('Content-Type', 'application/json')
      .set('Content-Encoding', 'Identity')
      .send('{}');
    expect(answer.body).toEqual({ received: {} });
  });
});

const send = async (type: string) => {
  const answer = await stack.gatehouse.http
    .post('/api/v1/open-body')
    .set('Content-Type', type)
    .send('{}');
  return (answer.body.code ?? 'accepted') as string;
};

describe('body charset', () => {
  it.each(['utf-8', 'UTF-8', '"utf-8"', '"Utf-8"'])(
    'accepts a body with the charset %s',
    async (name) => {
      expect(await send(`application/json; charset=${name}`)).toBe('accepted');
    },
  );

  it.each(['utf-16', 'UTF-16LE', '"utf-32"', 'utf-7', 'latin1', '""', 'utf-8; charset=utf-16'])(
    'refuses a body with the charset %s',
    async (name) => {
      expect(await send(`application/json; charset=${name}`)).toBe('UNSUPPORTED_MEDIA_TYPE');
    },
  );
});

const patch = (body: unknown) =>
  stack.gatehouse.call(`/api/v1/users/${ada.id}`, { method: 'PATCH', token: ada.token, body });
const fields = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => [`f${n}`, 1]));

describe('number of fields', () => {
  it('validates a body with 50 fields and names each unknown field', async () => {
    const { status, body } = await patch(fields(50));
    expect([status, body.errors.length]).toEqual([400, 50]);
  });

  it.each([
    ['in one object', fields(51)],
    ['in a list', { name: Array.from({ length: 50 }, () => 1) }],
    ['at all depths', { name: { a: fields(24), b: [fields(24)] } }],
    ['in a list of lists', { name: Array.from({ length: 26 }, () => [1]) }],
  ])('refuses a body with more than 50 fields and list entries %s', async (_what, body) => {
    expect(await patch(body)).toMatchObject({
      status: 400,
      body: {
        code: 'VALIDATION_ERROR',
        detail: 'A request is limited to 50 fields and array items in total.',
      },
    });
  });

  it('limits the fields of a query on routes with and without query parameters', async () => {
    const query = Array.from({ length: 900 }, (_, n) => `f${n}=1`).join('&');
    const read = async (path: string) => {
      const answer = await stack.gatehouse.call(`${path}?${query}`, { token: ada.token });
      return [answer.status, answer.body.code, answer.body.errors?.length];
    };
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [ada.id]);
    await until(async () => (await read('/api/v1/users'))[0], 400);
    expect(await read('/api/v1/users')).toEqual([400, 'VALIDATION_ERROR', undefined]);
    expect(await read('/api/v1/auth/me')).toEqual([400, 'VALIDATION_ERROR', 50]);
  });
});
