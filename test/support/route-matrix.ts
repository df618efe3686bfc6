import { request } from 'node:http';
import type { BetterAuth } from '../../tools/better-auth.ts';
import type { Extensions } from '../../src/extensions.js';
import { createDocument } from '../../src/openapi/document.js';
import { claimsOf, type TestUser, signUp } from './users.js';
import { retryOn503 } from './app-process.js';
import { encodeBody } from './encode-body.js';
import { takeSnapshot } from './user-snapshot.js';
import { type Stack, startStack } from './stack.js';

export interface RouteMatrix {
  /** Names the routes in the titles of the tests. */
  name: string;
  /**
   * A table of routes and callers. The first line names the callers, in this order: admin, self,
   * other, no-token, banned, demoted and revoked. Each other line has a method, a path and the
   * response to each caller: a success status, a key of `MEANING` such as `FORBIDDEN`, or another
   * status and problem code such as `409 CONFLICT`.
   */
  matrix: string;
  /**
   * The bodies by route, such as `POST /api/v1/projects`. A `FormData`, `Blob`, `Buffer` or text is
   * sent as it is, and an object as JSON. A function receives the values of path parameters, and
   * `id`, the id of the user.
   */
  bodies?: Record<string, Body | ((values: Record<string, string>) => Body)>;
  /** Only the documented paths with this prefix. The table must list all of them. */
  prefix?: string;
  extensions?: Partial<Extensions>;
  /**
   * Creates what the other path parameters name, before each request, and returns their values.
   * `{id}` is the user and `{sessionId}` a session of the user.
   */
  parameters?: (stack: Stack, target: TestUser) => Promise<Record<string, string>>;
}

type Body = object | string;

const MEANING: Record<string, string> = {
  MISSING: '401 AUTH_MISSING_TOKEN',
  REVOKED: '401 AUTH_SESSION_REVOKED',
  BANNED: '403 USER_BANNED',
  FORBIDDEN: '403 AUTH_FORBIDDEN',
  NOT_FOUND: '404 NOT_FOUND',
};

interface Row {
  route: string;
  method: string;
  template: string;
  /** A status, or status and problem code, for each caller. */
  expected: Record<string, string>;
}

interface Fixtures {
  /** The sender and the user in the path, for each kind of caller. */
  requests: Record<string, { actor?: TestUser; target: TestUser }>;
  sessionIds: Map<TestUser, string>;
  restore(): Promise<void>;
}

/**
 * Tests every listed route with every kind of caller, with tokens with and without a session id,
 * and with other spellings of the path. `admin`, `other`, `no-token` and `demoted` send requests
 * about the user `self`. `demoted` was an admin when Better-Auth issued the token. `self`, `banned`
 * and `revoked` (signed out) send requests about themselves. The latter two are admins, so only the
 * ban and the sign-out restrict them.
 */
export function describeRouteMatrix({
  name,
  matrix,
  bodies = {},
  prefix = '/',
  extensions = {},
  parameters,
}: RouteMatrix): void {
  const { callers, rows } = parseMatrix(matrix);
  let stack: Stack;

  describe(`permissions of the ${name}`, () => {
    // The tests restore rows by SQL. Without the change feed the next request reads them uncached.
    beforeAll(async () => (stack = await startStack({}, { CHANGE_FEED: 'off' }, extensions)));
    afterAll(() => stack.end());

    it(`lists exactly the documented ${name} in the permission matrix`, () => {
      const documented = Object.entries(createDocument(stack.gatehouse.app).paths)
        .filter(([path]) => path.startsWith(prefix))
        .flatMap(([path, operations]) =>
          Object.keys(operations).map((key) => `${key.toUpperCase()} ${path}`),
        );
      expect(rows.map(({ route }) => route).toSorted()).toEqual(documented.toSorted());
    });

    describe.each([
      ['name their session', () => stack.authWithSid],
      ['name no session', () => stack.auth],
    ])('permissions with tokens that %s', (tokens, issuer) => {
      let fixtures: Fixtures;
      beforeAll(async () => (fixtures = await createFixtures(stack, issuer())));

      it.each(rows)(
        `gives every caller the listed response to $route with tokens that ${tokens}`,
        async (row) => {
          const actual: Record<string, string> = {};
          for (const caller of callers) {
            const { status, body } = await sendAs(caller, row);
            const code = status < 300 ? undefined : (body?.code as string | undefined);
            actual[caller] = code === undefined ? String(status) : `${status} ${code}`;
          }
          expect(actual).toEqual(row.expected);
        },
      );

      describe.each(rows)('alternative spellings of $route', (row) => {
        it.each(respellings(row))(
          `gives no caller more access to ${row.route} with %s`,
          async (_name, respell, isSameRoute) => {
            for (const caller of callers) {
              const { actor, path, body } = await prepare(caller, row);
              const [method, respelled] = respell(row.method, path);
              const status = await send(stack, method, respelled, actor?.token, body);
              const expected = Number(row.expected[caller]?.slice(0, 3));
              // An unknown route returns 404. The changed path can be another id or another route,
              // which can be private or have other methods, so 401, 403 and 405 are possible.
              const alternatives = [404, 405, ...(expected < 300 ? [401, 403] : [])];
              expect([caller, status]).toEqual([
                caller,
                isSameRoute || !alternatives.includes(status) ? expected : status,
              ]);
            }
          },
        );
      });

      const prepare = async (caller: string, { template, route }: Row) => {
        await fixtures.restore();
        const { actor, target } = fixtures.requests[caller]!;
        const values: Record<string, string> = {
          id: target.id,
          sessionId: fixtures.sessionIds.get(target) ?? 'none',
          ...(await parameters?.(stack, target)),
        };
        const path = template.replaceAll(/\{(\w+)\}/g, (_, key: string) => values[key] ?? 'none');
        const body = bodies[route];
        return { actor, path, body: typeof body === 'function' ? body(values) : body };
      };

      const sendAs = async (caller: string, row: Row) => {
        const { actor, path, body } = await prepare(caller, row);
        // The tests of the health routes check the bodies of probes.
        if (row.template.startsWith('/health')) {
          return { status: await send(stack, row.method, path, actor?.token), body: {} };
        }
        const options = {
          method: row.method,
          ...(actor && { token: actor.token }),
          ...(body !== undefined && { body }),
        };
        return retryOn503(() => stack.gatehouse.call(path, options));
      };
    });
  });
}

export function parseMatrix(matrix: string): { callers: string[]; rows: Row[] } {
  const [callers = [], ...lines] = matrix
    .trim()
    .split('\n')
    .map((line) => line.match(CELL) ?? []);
  const rows = lines.map(([method = '', template = '', ...cells]) => {
    const route = `${method} ${template}`;
    if (cells.length !== callers.length) throw new Error(`${route} needs one cell for each caller`);
    const expected = Object.fromEntries(callers.map((caller, i) => [caller, meaningOf(cells[i]!)]));
    return { route, method, template, expected };
  });
  return { callers, rows };
}

/** A status with a problem code, or one word. */
const CELL = /[45]\d\d [A-Z]\w+|\S+/g;

function meaningOf(cell: string): string {
  const meaning = MEANING[cell] ?? cell;
  if (!/^\d{3}( |$)/.test(meaning)) {
    throw new Error(`${cell} is neither a status nor one of ${Object.keys(MEANING).join(', ')}`);
  }
  return meaning;
}

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

async function createFixtures(stack: Stack, issuer: BetterAuth): Promise<Fixtures> {
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

/** Sends the path as it is. `fetch` would normalize it. */
async function send(
  stack: Stack,
  method: string,
  path: string,
  token?: string,
  body?: Body,
): Promise<number> {
  const { port } = new URL(stack.gatehouse.url);
  const encoded = body === undefined ? undefined : await encodeBody(body);
  return new Promise((resolve, reject) => {
    const headers = {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(encoded && { 'content-type': encoded.type }),
    };
    request({ host: '127.0.0.1', port, path, method, headers })
      .on('response', (response) => {
        response.resume().on('end', () => resolve(response.statusCode ?? 0));
      })
      .on('error', reject)
      .end(encoded?.bytes);
  });
}
