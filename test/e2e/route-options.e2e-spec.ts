import { connect } from 'node:net';
import { type Stack, startStack } from '../support/stack.js';
import { OpenBodyModule } from '../support/open-body.js';
import { type TestUser, signUp } from '../support/users.js';

let stack: Stack;
let ada: TestUser;

beforeAll(async () => {
  stack = await startStack({}, { DOCS_ENABLED: 'on' }, { modules: [OpenBodyModule] });
  ada = await signUp(stack.auth);
});
afterAll(() => stack.end());

/** Sends the text, and returns the first line of the response as soon as it arrives. */
function statusLineFor(text: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect(Number(new URL(stack.gatehouse.url).port), '127.0.0.1');
  socket.once('data', (chunk: Buffer) => {
    resolve(chunk.toString().split('\r\n', 1)[0] ?? '');
    socket.destroy();
  });
  socket.once('error', reject);
  socket.write(text);
  return promise;
}

const headOf = (path: string, token?: string) =>
  `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n` +
  (token === undefined ? '' : `Authorization: Bearer ${token}\r\n`);

const BAN = '/api/v1/users/nobody/ban';

describe('body of a refused request', () => {
  it.each([
    ['without a token', BAN, 401],
    ['to an unknown route', '/api/v1/nothing', 404],
    ['with a method that the path does not support', '/health', 405],
  ])('does not read the body of a request %s', async (_what, path, status) => {
    // The rest of the body never arrives.
    for (const framing of ['Content-Length: 100\r\n\r\n{', 'Transfer-Encoding: chunked\r\n\r\n']) {
      const line = await statusLineFor(headOf(path) + framing);
      expect(line).toContain(`HTTP/1.1 ${status} `);
    }
  });

  it('does not read the body of a user without the role of the route', async () => {
    const line = await statusLineFor(`${headOf(BAN, ada.token)}Content-Length: 100\r\n\r\n{`);
    expect(line).toContain('HTTP/1.1 403 ');
  });

  it.each([
    ['{"a":', 'application/json'],
    ['a=b', 'text/plain'],
    [JSON.stringify('a'.repeat(20_000)), 'application/json'],
  ])('requires a token before it looks at the body %.10s', async (body, type) => {
    const answer = await stack.gatehouse.http.post(BAN).set('Content-Type', type).send(body);
    expect([answer.status, answer.body.code]).toEqual([401, 'AUTH_MISSING_TOKEN']);
  });
});
