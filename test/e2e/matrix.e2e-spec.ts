import { request } from 'node:http';
import type { BetterAuth } from '../../tools/better-auth.ts';
import { createDocument } from '../../src/openapi/document.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { retryOn503 } from '../support/app-process.js';
import { takeSnapshot } from '../support/user-snapshot.js';
import { type Stack, startStack } from '../support/stack.js';

/**
 * Who may do what. `admin`, `other`, `nobody` (no token) and `demoted` (an admin when the token was
 * issued) ask about somebody; `self`, `banned` and `revoked` (signed out) about themselves, the latter
 * two being admins, so that they could do everything if it were not for that.
 */
const MATRIX = `
                                                   admin  self       other      nobody   banned  demoted    revoked
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
  /** By caller, `200` or status and code. */
  verdicts: Record<string, string>;
}

const [callers = [], ...lines] = MATRIX.trim()
  .split('\n')
  .map((line) => line.trim().split(/ +/));
const rows: Row[] = lines.map(([method = '', template = '', ...cells]) => ({
  route: `${method} ${template}`,
  method,
  template,
  verdicts: Object.fromEntries(callers.map((caller, i) => [caller, MEANING[cells[i] ?? ''] ?? ''])),
}));

interface Cast {
  /** Who asks, and about whom. */
  asks: Record<string, { by?: TestUser; about: TestUser }>;
  sessionOf: Map<TestUser, string>;
  restore(): Promise<void>;
}

let stack: Stack;
// What is put back by hand is meant for the very next request.
beforeAll(async () => (stack = await startStack({}, { CHANGE_FEED: 'off' })));
afterAll(() => stack.end());

it('has a row for every route, and no other', () => {
  const documented = Object.entries(createDocument(stack.gatehouse.app).paths).flatMap(
    ([path, operations]) => Object.keys(operations).map((key) => `${key.toUpperCase()} ${path}`),
  );
  expect(rows.map(({ route }) => route).toSorted()).toEqual(documented.toSorted());
});

describe.each([
  ['name their session', () => stack.authWithSid],
  ['name none', () => stack.auth],
])('with tokens that %s', (_what, issuer) => {
  let cast: Cast;
  beforeAll(async () => (cast = await assemble(issuer())));

  it.each(rows)('$route', async (row) => {
    const seen: Record<string, string> = {};
    for (const caller of callers) {
      const { status, body } = await ask(cast, row, caller);
      seen[caller] = status === 200 ? '200' : `${status} ${body.code}`;
    }
    expect(seen).toEqual(row.verdicts);
  });

  describe.each(rows)('$route, written in another way', (row) => {
    it.each(ways(row))('%s', async (_way, respell, arrives) => {
      for (const caller of callers) {
        await cast.restore();
        const { by, path } = requestOf(cast, row, caller);
        const [method, respelled] = respell(row.method, path);
        const status = await send(method, respelled, by?.token, BODIES[row.route]);
        const wanted = Number(row.verdicts[caller]?.slice(0, 3));
        // To a route that is not there nobody is refused; and a changed id is another one.
        const otherwise = [404, ...(wanted === 200 ? [403] : [])];
        expect([caller, status]).toEqual([
          caller,
          arrives || !otherwise.includes(status) ? wanted : status,
        ]);
      }
    });
  });
});

/** By name: what it does to a method and a path, and whether it is the same route all the same. */
function ways({ method }: Row) {
  type Way = [string, (method: string, path: string) => [string, string], boolean];
  const all: Way[] = [
    ['HEAD', (_, path) => ['HEAD', path], true],
    ['/ at the end', (method, path) => [method, `${path}/`], true],
    ['UPPER CASE', (method, path) => [method, path.replace(/^\/(api\/v1\/)?\w+/, upper)], true],
    ['// in front', (method, path) => [method, `/${path}`], false],
    ['// within', (method, path) => [method, path.replace(/(\w)\//, '$1//')], false],
    ['/./ within', (method, path) => [method, `/.${path}`], false],
    ['/../ within', (method, path) => [method, `/api/v1/users/../../..${path}`], false],
    ['%61 for a', (method, path) => [method, path.replace('a', '%61')], false],
    ['%2f at the end', (method, path) => [method, `${path}%2f`], false],
    [';x=1 at the end', (method, path) => [method, `${path};x=1`], false],
  ];
  return all.filter(([name]) => name !== 'HEAD' || method === 'GET');
}

const upper = (text: string) => text.toUpperCase();

async function assemble(issuer: BetterAuth): Promise<Cast> {
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
    const order = { method, token: admin.token, body };
    const answer = await retryOn503(() => stack.gatehouse.call(`/api/v1/users/${path}`, order));
    expect(answer.status).toBe(200);
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
    asks: {
      admin: { by: admin, about: self },
      self: { by: self, about: self },
      other: { by: other, about: self },
      nobody: { about: self },
      banned: { by: banned, about: banned },
      demoted: { by: demoted, about: self },
      revoked: { by: revoked, about: revoked },
    },
    sessionOf: new Map([[self, session?.id ?? '']]),
    restore: await takeSnapshot(stack.database),
  };
}

function requestOf(cast: Cast, { template }: Row, caller: string) {
  const { by, about } = cast.asks[caller]!;
  const path = template
    .replace('{id}', about.id)
    .replace('{sessionId}', cast.sessionOf.get(about) ?? 'none');
  return { by, path };
}

async function ask(cast: Cast, row: Row, caller: string) {
  await cast.restore();
  const { by, path } = requestOf(cast, row, caller);
  const body = BODIES[row.route];
  // What a probe says is for test/health to look at.
  if (row.template.startsWith('/health')) {
    return { status: await send(row.method, path, by?.token), body: {} };
  }
  const order = { method: row.method, ...(by && { token: by.token }), ...(body && { body }) };
  return retryOn503(() => stack.gatehouse.call(path, order));
}

/** Without the tidying that `fetch` does to a path. */
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
