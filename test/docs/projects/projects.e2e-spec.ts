import { extensions } from './projects.extensions.js';
import { describeRouteMatrix } from '../../support/route-matrix.js';
import { type Stack, startStack } from '../../support/stack.js';
import { signUp } from '../../support/users.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack({}, {}, extensions)));
afterAll(() => stack.end());

it('lists only the projects of the user', async () => {
  const [ada, bob] = [await signUp(stack.auth), await signUp(stack.auth)];
  for (const { token } of [ada, bob]) {
    const body = { name: 'Engine' };
    await stack.gatehouse.call('/api/v1/projects', { method: 'POST', token, body });
  }
  const { status, body } = await stack.gatehouse.call('/api/v1/projects', { token: ada.token });
  expect(status).toBe(200);
  expect(body).toEqual([expect.objectContaining({ name: 'Engine', owner: ada.id })]);
});

describeRouteMatrix({
  name: 'routes of projects',
  prefix: '/api/v1/projects',
  extensions,
  matrix: `
                                       admin  self  other      no-token  banned  demoted    revoked
    GET    /api/v1/projects             200    200   200        MISSING   BANNED  200        REVOKED
    POST   /api/v1/projects             201    201   201        MISSING   BANNED  201        REVOKED
    PATCH  /api/v1/projects/{projectId} 200    200   FORBIDDEN  MISSING   BANNED  FORBIDDEN  REVOKED
    DELETE /api/v1/projects/{projectId} 204    204   FORBIDDEN  MISSING   BANNED  FORBIDDEN  REVOKED
  `,
  bodies: {
    'POST /api/v1/projects': { name: 'Engine' },
    'PATCH /api/v1/projects/{projectId}': { name: 'Analytical Engine' },
  },
  parameters: async ({ database }, target) => {
    const [project] = await database.sql<{ id: string }>(
      `insert into app.project (name, owner_id) values ('Engine', $1) returning id`,
      [target.id],
    );
    return { projectId: project?.id ?? '' };
  },
});
