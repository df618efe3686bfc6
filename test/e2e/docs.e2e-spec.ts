import { gunzipSync } from 'node:zlib';
import { request as rawRequest, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { jest } from '@jest/globals';
import { createDocument } from '../../src/openapi/document.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

let database: TestDatabase;
let gatehouse: RunningApp;

beforeAll(async () => {
  database = await createDatabase();
  gatehouse = await startApp({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: 'http://127.0.0.1:9',
  });
});
afterAll(async () => {
  await gatehouse.close();
  await database.drop();
});

/** Returns the response with its body as transferred, still compressed. */
async function read(path: string, headers: Record<string, string> = {}, method = 'GET') {
  const request = rawRequest(`${gatehouse.url}${path}`, { method, headers }).end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) };
}

const GZIP = { 'accept-encoding': 'gzip, deflate, br' };
const PAGE = [
  '/api/v1/docs',
  '/api/v1/docs/swagger-ui.css',
  '/api/v1/docs/page.css',
  '/api/v1/docs/swagger-ui-bundle.js',
  '/api/v1/docs/page.js',
  '/api/v1/docs/sign-in.js',
  '/api/v1/docs/better-auth.js',
  '/api/v1/docs/token-session.js',
  '/api/v1/docs/pasted-token.js',
  '/api/v1/docs/openapi.json',
  '/api/v1/docs/favicon-32x32.png',
];
const CACHED = ['/api/v1/openapi.json', ...PAGE];

it('transfers less than 1 MB for the documentation page, and no content for a reload', async () => {
  let [first, again] = [0, 0];
  for (const path of PAGE) {
    const { status, headers, body } = await read(path, GZIP);
    expect([path, status]).toEqual([path, 200]);
    first += body.length;
    again += (await read(path, { ...GZIP, 'if-none-match': String(headers.etag) })).body.length;
  }
  expect(first).toBeLessThan(1_000_000);
  expect(again).toBe(0);
});

describe.each(CACHED)('cached document %s', (path) => {
  it(`serves the same ${path} with and without gzip, and with an ETag`, async () => {
    const [plain, compressed] = [await read(path), await read(path, GZIP)];
    expect(compressed.headers).toMatchObject({
      'content-encoding': 'gzip',
      'cache-control': 'public, no-cache',
      'content-length': String(compressed.body.length),
      vary: expect.stringContaining('Accept-Encoding'),
      etag: expect.stringMatching(/^W\/"[\w-]{27}"$/),
      'x-content-type-options': 'nosniff',
    });
    expect(plain.headers['content-encoding']).toBeUndefined();
    expect(plain.headers.vary).toContain('Accept-Encoding');
    expect(gunzipSync(compressed.body).equals(plain.body)).toBe(true);
    expect(plain.headers.etag).toBe(compressed.headers.etag);
  });

  it(`returns 304 for ${path} to a client that has its ETag`, async () => {
    const { etag = '' } = (await read(path, GZIP)).headers;
    const again = await read(path, { ...GZIP, 'if-none-match': etag });
    expect([again.status, again.body.length, again.headers.etag]).toEqual([304, 0, etag]);
    const other = await read(path, { ...GZIP, 'if-none-match': 'W/"other"' });
    expect(other.status).toBe(200);
  });

  it(`returns the same headers of ${path} for HEAD as for GET`, async () => {
    const [get, head] = [await read(path, GZIP), await read(path, GZIP, 'HEAD')];
    const { date: _, 'x-request-id': __, ratelimit: ___, ...headers } = get.headers;
    expect(head).toMatchObject({ status: 200, headers });
    expect(head.body).toHaveLength(0);
  });

  it(`refuses other methods for ${path}`, async () => {
    expect((await read(path, {}, 'DELETE')).status).toBe(405);
  });
});

const parse = async (path: string) => JSON.parse((await read(path)).body.toString()) as unknown;

it('serves the OpenAPI document, and a shorter one to the documentation page', async () => {
  const document = JSON.parse(JSON.stringify(createDocument(gatehouse.app))) as unknown;
  expect(await parse('/api/v1/openapi.json')).toEqual(document);
  const pageDocument = await parse('/api/v1/docs/openapi.json');
  expect(pageDocument).not.toEqual(document);
  expect(pageDocument).toMatchObject({
    info: { description: expect.stringContaining('http://127.0.0.1:9/api/auth/token') },
  });
});

it('allows the page to connect to Better-Auth only for the sign-in, and runs no inline script', async () => {
  const off = await startApp({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: 'http://127.0.0.1:9',
    DOCS_SIGN_IN: 'off',
  });
  try {
    const [withSignIn, without] = [
      await fetch(`${gatehouse.url}/api/v1/docs`),
      await fetch(`${off.url}/api/v1/docs`),
    ];
    const policies = [withSignIn, without].map(({ headers }) =>
      headers.get('content-security-policy'),
    );
    expect(policies[0]).toBe(`${policies[1]};connect-src 'self' http://127.0.0.1:9`);
    expect(policies[1]).toBe(
      "default-src 'self';img-src 'self' data:;style-src 'self' 'unsafe-inline';object-src 'none';base-uri 'none';form-action 'self';frame-ancestors 'none'",
    );
    const pages = [await withSignIn.text(), await without.text()];
    expect(pages[0]).toContain('data-better-auth="http://127.0.0.1:9"');
    expect(pages[1]).toContain('data-better-auth=""');
    for (const page of pages) expect(page).not.toMatch(/<script(?![^>]* src=)|\son\w+=/);
  } finally {
    await off.close();
  }
});

it('serialises the OpenAPI document once', async () => {
  await read('/api/v1/openapi.json');
  const stringify = jest.spyOn(JSON, 'stringify');
  try {
    for (let n = 0; n < 5; n += 1) await read('/api/v1/openapi.json', GZIP);
    const large = stringify.mock.results.filter(({ value }) => String(value).length > 10_000);
    expect(large).toEqual([]);
  } finally {
    stringify.mockRestore();
  }
});

it('redirects the root to the documentation page, within the rate limit', async () => {
  const { status, headers } = await read('/');
  expect([status, headers['location']]).toEqual([302, '/api/v1/docs']);
  expect(headers['ratelimit-policy']).toMatch(/^"address";q=/);
});

it('serves no documentation and no redirect with DOCS_ENABLED=off', async () => {
  const app = await startApp({
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: 'http://127.0.0.1:9',
    DOCS_ENABLED: 'off',
  });
  try {
    for (const path of ['/', '/api/v1/openapi.json', ...PAGE]) {
      const { status } = await fetch(app.url + path, { redirect: 'manual' });
      expect([path, status]).toEqual([path, 404]);
    }
  } finally {
    await app.close();
  }
});
