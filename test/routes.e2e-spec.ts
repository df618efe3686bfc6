import { describeApi } from '../src/openapi.js';
import { signUp } from './clients.js';
import { type Stack, startStack } from './stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack()));
afterAll(() => stack.end());

interface Layer {
  route?: { path: string; methods: Record<string, boolean> };
}

/** Every route that Express has, whatever the decorators or the document say. */
function routes(): string[] {
  const { router } = stack.gatehouse.app.getHttpAdapter().getInstance() as unknown as {
    router: { stack: Layer[] };
  };
  return router.stack
    .flatMap(({ route }) =>
      Object.keys(route?.methods ?? {}).map((method) => `${method.toUpperCase()} ${route?.path}`),
    )
    .toSorted();
}

it('has these public routes and no other', async () => {
  const open = [];
  for (const route of routes()) {
    const [method = '', path = ''] = route.split(' ');
    const { status } = await fetch(stack.gatehouse.url + path.replaceAll(/:\w+/g, 'x'), { method });
    if (status !== 401) open.push(route);
  }
  expect(open).toEqual([
    'GET /api/v1/docs',
    'GET /api/v1/docs/',
    'GET /api/v1/docs/LICENSE',
    'GET /api/v1/docs/docs/swagger-ui-init.js',
    'GET /api/v1/docs/index.html',
    'GET /api/v1/docs/swagger-ui-init.js',
    'GET /api/v1/openapi.json',
    'GET /health',
    'GET /health/db',
    'GET /health/live',
    'GET /health/ready',
  ]);
});

it('documents every route it has, and no other', () => {
  const documented = Object.entries(describeApi(stack.gatehouse.app).paths).flatMap(
    ([path, operations]) =>
      Object.keys(operations).map(
        (method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`,
      ),
  );
  expect(documented.toSorted()).toEqual(
    routes().filter((route) => !/\/(docs|openapi)/.test(route)),
  );
});

it('asks for a token in the document where it asks for one in truth', () => {
  for (const [path, operations] of Object.entries(describeApi(stack.gatehouse.app).paths)) {
    for (const operation of Object.values(
      operations as Record<string, { security: unknown; responses: object }>,
    )) {
      const isPublic = path.startsWith('/health');
      expect(operation.security).toEqual(isPublic ? [] : [{ bearer: [] }]);
      expect('401' in operation.responses).toBe(!isPublic);
    }
  }
});

describe('the same verdict for every way to write a path', () => {
  const ways = [
    '//api/v1/auth/me',
    '/api/v1//auth/me',
    '/api/v1/auth/me/',
    '/API/V1/AUTH/ME',
    '/api/v1/auth/%6De',
    '/api/v1/auth/me?x=1',
    '/api/v1/./auth/me',
    '/api/v1/users/../auth/me',
    '/api/v1/auth/me;x=1',
    '/api/v1/auth/me%2f',
  ];

  it.each(ways)('%s is private or is not there', async (way) => {
    for (const method of ['GET', 'HEAD']) {
      const { status } = await rawFetch(way, method);
      expect([401, 404]).toContain(status);
    }
  });

  it.each(ways)('%s with a token is the same or is not there', async (way) => {
    const ada = await signUp(stack.auth);
    const { status, text } = await rawFetch(way, 'GET', ada.token);
    expect([200, 404]).toContain(status);
    if (status === 200) expect(text).toContain(ada.id);
  });

  it('HEAD meets the same guard as GET', async () => {
    const ada = await signUp(stack.auth);
    expect((await rawFetch('/api/v1/auth/me', 'HEAD')).status).toBe(401);
    expect((await rawFetch('/api/v1/auth/me', 'HEAD', ada.token)).status).toBe(200);
  });
});

/** Without the tidying that `fetch` does to a path. */
async function rawFetch(path: string, method: string, token?: string) {
  const { request } = await import('node:http');
  const { port } = new URL(stack.gatehouse.url);
  return new Promise<{ status: number | undefined; text: string }>((resolve, reject) => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    request({ host: '127.0.0.1', port, path, method, headers })
      .on('response', (response) => {
        let text = '';
        response.on('data', (chunk: Buffer) => (text += chunk.toString()));
        response.on('end', () => resolve({ status: response.statusCode, text }));
      })
      .on('error', reject)
      .end();
  });
}
