import { listRoutes } from '../../src/http/method-not-allowed.js';
import { createDocument } from '../../src/openapi/document.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack()));
afterAll(() => stack.end());

/** Every route that is registered in Express, independent of decorators and document. */
function routes(): string[] {
  return listRoutes(stack.gatehouse.app.getHttpAdapter().getInstance())
    .flatMap(({ path, methods = [] }) => methods.map((method) => `${method} ${path}`))
    .filter((route) => !route.startsWith('HEAD '))
    .toSorted();
}

it('makes only the listed routes public', async () => {
  const publicRoutes = [];
  for (const route of routes()) {
    const [method = '', path = ''] = route.split(' ');
    const url = stack.gatehouse.url + path.replaceAll(/:\w+/g, 'x');
    const { status } = await fetch(url, { method, redirect: 'manual' });
    if (status !== 401) publicRoutes.push(route);
  }
  expect(publicRoutes).toEqual([
    'GET /',
    'GET /api/v1/docs',
    'GET /api/v1/docs/better-auth.js',
    'GET /api/v1/docs/favicon-32x32.png',
    'GET /api/v1/docs/openapi.json',
    'GET /api/v1/docs/page.css',
    'GET /api/v1/docs/page.js',
    'GET /api/v1/docs/pasted-token.js',
    'GET /api/v1/docs/sign-in.js',
    'GET /api/v1/docs/swagger-ui-bundle.js',
    'GET /api/v1/docs/swagger-ui.css',
    'GET /api/v1/docs/token-session.js',
    'GET /api/v1/openapi.json',
    'GET /health',
    'GET /health/db',
    'GET /health/live',
    'GET /health/ready',
  ]);
});

it('documents exactly the routes that exist', () => {
  const documented = Object.entries(createDocument(stack.gatehouse.app).paths).flatMap(
    ([path, operations]) =>
      Object.keys(operations).map(
        (method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`,
      ),
  );
  expect(documented.toSorted()).toEqual(
    // `GET /` redirects to the documents.
    routes().filter((route) => route !== 'GET /' && !/\/(docs|openapi)/.test(route)),
  );
});

it('documents a bearer token for exactly the routes that require one', () => {
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
