import { request } from 'node:http';
import type { BetterAuth } from '../../tools/better-auth.ts';
import { createDocument } from '../../src/openapi/document.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { retryOn503 } from '../support/app-process.js';
import { takeSnapshot } from '../support/user-snapshot.js';
import { type Stack, startStack } from '../support/stack.js';

/**
 * The permissions of every kind of caller. `admin`, `other`, `no-token` and `demoted` send requests
 * about the user `self`. `demoted` was an admin when Better-Auth issued the token. `self`, `banned`
 * and `revoked` (signed out) send requests about themselves. The latter two are admins, so only the
 * ban and the sign-out restrict them.
 */
const MATRIX = `
                                                   admin  self       other      no-token banned  demoted    revoked
  GET    /api/v1/auth/session                      200    200        200        MISSING  BANNED  200        REVOKED
  GET    /api/v1/auth/me                           200    200        200        MISSING  BANNED  200        REVOKED
  GET    /api/v1/auth/accounts                     200    200        200        MISSING  BANNED  200        REVOKED
  GET    /api/v1/users                             200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/users/{id}                        200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  PATCH  /api/v1/users/{id}                        200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  PUT    /api/v1/users/{id}/role                   200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  POST   /api/v1/users/{id}/ban                    200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  DELETE /api/v1/users/{id}/ban                    200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/users/{id}/sessions               200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  DELETE /api/v1/users/{id}/sessions               200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  DELETE /api/v1/users/{id}/sessions/{sessionId}   200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/users/{id}/accounts               200    200        FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /api/v1/audit-events                      200    FORBIDDEN  FORBIDDEN  MISSING  BANNED  FORBIDDEN  REVOKED
  GET    /health                                   200    200        200        200      200     200        200
  GET    /health/live                              200    200        200        200      200     200        200
  GET    /health/ready                             200    200        200        200      200     200        200
  GET    /health/db                                200    200        200        200      200     200        200
`;

const MEANING: Record<string, string> = {
  '200': '200',
  MISSING: '401 AUTH_MISSING_TOKEN',
  REVOKED: '401 AUTH_SESSION_REVOKED',
  BANNED: '403 USER_BANNED',
  FORBIDDEN: '403 AUTH_FORBIDDEN',
};

const BODIES: Record<string, object> = {
  'PATCH /api/v1/users/{id}': { name: 'Changed' },
  'PUT /api/v1/users/{id}/role': { role: 'admin' },
  'POST /api/v1/users/{id}/ban': { reason: 'spam' },
};

interface Row {
  route: string;
  method: string;
  template: string;
  /** `200`, or status and problem code, for each caller. */
  expected: Record<string, string>;
}

const [callers = [], ...lines] = MATRIX.trim()
  .split('\n')
  .map((line) => line.trim().split(/ +/));
const rows: Row[] = lines.map(([method = '', template = '', ...cells]) => ({
  route: `${method} ${template}`,
  method,
  template,
  expected: Object.fromEntries(callers.map((caller, i) => [caller, MEANING[cells[i] ?? ''] ?? ''])),
}));

interface Fixtures {
  /** The sender and the user in the path, for each kind of caller. */
  requests: Record<string, { actor?: TestUser; target: TestUser }>;
  sessionIds: Map<TestUser, string>;
  restore(): Promise<void>;
}

let stack: Stack;
// The tests restore rows by SQL. Without the change feed the next request reads them uncached.
beforeAll(async () => (stack = await startStack({}, { CHANGE_FEED: 'off' })));
afterAll(() => stack.end());

it('lists exactly the documented routes in the permission matrix', () => {
  const documented = Object.entries(createDocument(stack.gatehouse.app).paths).flatMap(
    ([path, operations]) => Object.keys(operations).map((key) => `${key.toUpperCase()} ${path}`),
  );
  expect(rows.map(({ route }) => route).toSorted()).toEqual(documented.toSorted());
});

describe.each([
  ['name their session', () => stack.authWithSid],
  ['name no session', () => stack.auth],
])('permissions with tokens that %s', (tokens, issuer) => {
  let fixtures: Fixtures;
  beforeAll(async () => (fixtures = await createFixtures(issuer())));

  it.each(rows)(
    `gives every caller the listed response to $route with tokens that ${tokens}`,
    async (row) => {
      const actual: Record<string, string> = {};
      for (const caller of callers) {
        const { status, body } = await sendAs(fixtures, row, caller);
        actual[caller] = status === 200 ? '200' : `${status} ${body.code}`;
      }
      expect(actual).toEqual(row.expected);
    },
  );

  describe.each(rows)('alternative spellings of $route', (row) => {
    it.each(respellings(row))(
      `gives no caller more access to ${row.route} with %s`,
      async (_name, respell, isSameRoute) => {
        for (const caller of callers) {
          await fixtures.restore();
          const { actor, path } = requestOf(fixtures, row, caller);
          const [method, respelled] = respell(row.method, path);
          const status = await send(method, respelled, actor?.token, BODIES[row.route]);
          const expected = Number(row.expected[caller]?.slice(0, 3));
          // An unknown route returns 404. A changed id is another id, so 403 is possible.
          const alternatives = [404, ...(expected === 200 ? [403] : [])];
          expect([caller, status]).toEqual([
            caller,
            isSameRoute || !alternatives.includes(status) ? expected : status,
          ]);
        }
      },
    );
  });
});

/** Each has a name, a change of method and path, and whether the changed path is the same route. */
function respellings({ method }: Row) {
  type Respelling = [string, (method: string, path: string) => [string, string], boolean];
  const all: Respelling[] = [
    ['HEAD', (_, path) => ['HEAD', path], true],
    ['a slash at the end', (method, path) => [method, `${path}/`], true],
    ['upper case', (method, path) => [method, path.replace(/^\/(api\/v1\/)?\w+/, upper)], true],
    ['// at the start', (method, path) => [method, `/${path}`], false],
    ['// inside', (method, path) => [method, path.replace(/(\w)\//, '$1//')], false],
    ['/./ inside', (method, path) => [method, `/.${path}`], false],
    ['/../ inside', (method, path) => [method, `/api/v1/users/../../..${path}`], false],
    ['%61 in place of a', (method, path) => [method, path.replace('a', '%61')], false],
    ['%2f at the end', (method, path) => [method, `${path}%2f`], false],
    [';x=1 at the end', (method, path) => [method, `${path};x=1`], false],
  ];
  return all.filter(([name]) => name !== 'HEAD' || method === 'GET');
}

const upper = (text: string) => text.toUpperCase();

async function createFixtures(issuer: BetterAuth): Promise<Fixtures> {
  const signUpAdmin = async (name: string): Promise<TestUser> => {
    const person = await signUp(issuer, name);
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [person.id]);
    return { ...person, token: await issuer.tokenFor(person.session) };
  };
  const [admin, self, other] = [
    await signUpAdmin('Admin'),
    await signUp(issuer),
    await signUp(issuer),
  ];
  const [banned, demoted, revoked] = [
    await signUpAdmin('Banned'),
    await signUpAdmin('Demoted'),
    await signUpAdmin('Revoked'),
  ];
  const change = async (method: string, path: string, body: object): Promise<void> => {
    const options = { method, token: admin.token, body };
    const response = await retryOn503(() => stack.gatehouse.call(`/api/v1/users/${path}`, options));
    expect(response.status).toBe(200);
  };
  await change('POST', `${banned.id}/ban`, {});
  await change('PUT', `${demoted.id}/role`, { role: 'user' });
  await issuer.signOut(revoked.session);
  expect(claimsOf(demoted.token)['role']).toBe('admin');
  const [session] = await stack.database.sql<{ id: string }>(
    'select id from session where "userId" = $1',
    [self.id],
  );
  return {
    requests: {
      admin: { actor: admin, target: self },
      self: { actor: self, target: self },
      other: { actor: other, target: self },
      'no-token': { target: self },
      banned: { actor: banned, target: banned },
      demoted: { actor: demoted, target: self },
      revoked: { actor: revoked, target: revoked },
    },
    sessionIds: new Map([[self, session?.id ?? '']]),
    restore: await takeSnapshot(stack.database),
  };
}

function requestOf(fixtures: Fixtures, { template }: Row, caller: string) {
  const { actor, target } = fixtures.requests[caller]!;
  const path = template
    .replace('{id}', target.id)
    .replace('{sessionId}', fixtures.sessionIds.get(target) ?? 'none');
  return { actor, path };
}

async function sendAs(fixtures: Fixtures, row: Row, caller: string) {
  await fixtures.restore();
  const { actor, path } = requestOf(fixtures, row, caller);
  const body = BODIES[row.route];
  // The tests of the health routes check the bodies of probes.
  if (row.template.startsWith('/health')) {
    return { status: await send(row.method, path, actor?.token), body: {} };
  }
  const options = {
    method: row.method,
    ...(actor && { token: actor.token }),
    ...(body && { body }),
  };
  return retryOn503(() => stack.gatehouse.call(path, options));
}

/** Sends the path as it is. `fetch` would normalize it. */
function send(method: string, path: string, token?: string, body?: object): Promise<number> {
  const { port } = new URL(stack.gatehouse.url);
  return new Promise((resolve, reject) => {
    const headers = {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body ? { 'content-type': 'application/json' } : {}),
    };
    request({ host: '127.0.0.1', port, path, method, headers })
      .on('response', (response) => {
        response.resume().on('end', () => resolve(response.statusCode ?? 0));
      })
      .on('error', reject)
      .end(body && JSON.stringify(body));
  });
}
