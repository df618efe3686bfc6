import { createDocument } from '../../src/openapi/document.js';
import { type Stack, startStack } from '../support/stack.js';

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
    'GET /api/v1/docs/favicon-16x16.png',
    'GET /api/v1/docs/favicon-32x32.png',
    'GET /api/v1/docs/index.html',
    'GET /api/v1/docs/openapi.json',
    'GET /api/v1/docs/swagger-ui-bundle.js',
    'GET /api/v1/docs/swagger-ui-init.js',
    'GET /api/v1/docs/swagger-ui-standalone-preset.js',
    'GET /api/v1/docs/swagger-ui.css',
    'GET /api/v1/openapi.json',
    'GET /health',
    'GET /health/db',
    'GET /health/live',
    'GET /health/ready',
  ]);
});

it('documents every route it has, and no other', () => {
  const documented = Object.entries(createDocument(stack.gatehouse.app).paths).flatMap(
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
  for (const [path, operations] of Object.entries(createDocument(stack.gatehouse.app).paths)) {
    for (const operation of Object.values(
      operations as Record<string, { security: unknown; responses: object }>,
    )) {
      const isPublic = path.startsWith('/health');
      expect(operation.security).toEqual(isPublic ? [] : [{ bearer: [] }]);
      expect('401' in operation.responses).toBe(!isPublic);
    }
  }
});
