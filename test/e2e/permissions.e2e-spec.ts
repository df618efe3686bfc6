import { writePermissions, type TestRoles } from '../support/permissions-file.js';
import { Client } from 'pg';
import { administrationOf, locksOf, sidOf } from '../support/administration.js';
import { retryOn503, until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import type { TestResponse } from '../support/openapi-check.js';
import { signUp, type TestUser } from '../support/users.js';
import { takeSnapshot } from '../support/user-snapshot.js';

const ALL: Record<string, string[]> = {
  user: ['list', 'get', 'update', 'set-role', 'ban', 'impersonate'],
  session: ['list', 'revoke'],
  audit: ['list', 'export'],
};
const PERMISSIONS = Object.entries(ALL).flatMap(([resource, actions]) =>
  actions.map((action) => `${resource}:${action}`),
);

const statementsOf = (permissions: string[]) => {
  const statements: Record<string, string[]> = {};
  for (const [resource = '', action = ''] of permissions.map((name) => name.split(':'))) {
    (statements[resource] ??= []).push(action);
  }
  return statements;
};

/** A role that has only one permission, and a role that has all others, for each permission. */
const ROLES: TestRoles = {
  admin: ALL,
  ...Object.fromEntries(
    PERMISSIONS.flatMap((name) => [
      [`only-${name}`, statementsOf([name])],
      [`not-${name}`, statementsOf(PERMISSIONS.filter((other) => other !== name))],
    ]),
  ),
  support: { user: ['list', 'get'], session: ['list'] },
  moderator: { user: ['ban', 'update', 'get'], session: ['revoke'] },
  manager: { user: ['list', 'get', 'update', 'set-role', 'ban'], session: ['list', 'revoke'] },
  impersonator: { user: ['impersonate', 'list'] },
  limited: {},
};

let stack: Stack;
let withoutFile: RunningApp;
let actor: TestUser;
let below: TestUser;
let above: TestUser;
let equal: TestUser;
let root: TestUser;
let restore: () => Promise<void>;

beforeAll(async () => {
  // The tests change roles by SQL. Without the change feed the next request reads them uncached.
  const variables = { CHANGE_FEED: 'off', ADMIN_ROLES: 'admin,limited' };
  stack = await startStack({}, { ...variables, ...writePermissions(ROLES) });
  withoutFile = await startApp({
    DATABASE_URL: stack.database.url,
    BETTER_AUTH_URL: stack.auth.origin,
    CHANGE_FEED: 'off',
  });
  actor = await signUp(stack.authWithSid);
  below = await signUp(stack.authWithSid);
  above = await signUp(stack.authWithSid);
  equal = await signUp(stack.authWithSid);
  root = await signUp(stack.authWithSid);
  for (const { id } of [above, root]) await giveRole(id, 'admin');
  restore = await takeSnapshot(stack.database);
});

afterAll(async () => {
  await withoutFile.close();
  await stack.end();
});

const { callUsers, impersonate, stateOf, whileLocked } = administrationOf(() => stack);

const giveRole = (id: string, role: string | null) =>
  stack.database.sql('update "user" set role = $1 where id = $2', [role, id]);

const outcomeOf = ({ status, body }: TestResponse) =>
  status < 300 ? String(status) : `${status} ${body.code}`;

describe('access matrix with PERMISSIONS_FILE', () => {
  const SELF_BAN = '409 SELF_BAN';
  const FORBIDDEN = '403 AUTH_FORBIDDEN';
  const ESCALATION = '403 ROLE_ESCALATION';
  const JSON_LINES = { accept: 'application/x-ndjson' };

  interface Row {
    route: string;
    permission: string;
    /** The response to a user without permissions who sends the request about themselves. */
    self: string;
    /** The response to the holder who sends the request about themselves. */
    own?: string;
    /** Whether the request changes another user. */
    isChange?: boolean;
    body?: object;
    headers?: Record<string, string>;
  }

  const rows: Row[] = [
    { route: 'GET users', permission: 'user:list', self: FORBIDDEN },
    { route: 'GET users/{id}', permission: 'user:get', self: '200' },
    { route: 'GET users/{id}/accounts', permission: 'user:get', self: '200' },
    {
      route: 'PATCH users/{id}',
      permission: 'user:update',
      self: '200',
      isChange: true,
      body: { name: 'Changed' },
    },
    {
      route: 'PUT users/{id}/role',
      permission: 'user:set-role',
      self: FORBIDDEN,
      own: '409 SELF_DEMOTION',
      isChange: true,
      body: { role: 'user' },
    },
    {
      route: 'POST users/{id}/ban',
      permission: 'user:ban',
      self: FORBIDDEN,
      own: SELF_BAN,
      isChange: true,
      body: {},
    },
    { route: 'DELETE users/{id}/ban', permission: 'user:ban', self: FORBIDDEN, isChange: true },
    { route: 'GET users/{id}/sessions', permission: 'session:list', self: '200' },
    {
      route: 'DELETE users/{id}/sessions/{sessionId}',
      permission: 'session:revoke',
      self: '200',
      isChange: true,
    },
    {
      route: 'DELETE users/{id}/sessions',
      permission: 'session:revoke',
      self: '200',
      isChange: true,
    },
    { route: 'GET sessions', permission: 'session:list', self: FORBIDDEN },
    {
      route: 'POST sessions/revocations',
      permission: 'session:revoke',
      self: FORBIDDEN,
      body: { filter: { ip: '192.0.2.1' } },
    },
    { route: 'GET audit-events', permission: 'audit:list', self: FORBIDDEN },
    { route: 'GET audit-events', permission: 'audit:export', self: FORBIDDEN, headers: JSON_LINES },
  ];

  async function send({ route, body, headers = {} }: Row, role: string | null, target: TestUser) {
    await restore();
    await giveRole(equal.id, role);
    await giveRole(actor.id, role);
    const [method = '', template = ''] = route.split(' ');
    const path = template.replace('{id}', target.id).replace('{sessionId}', sidOf(target));
    const url = `${stack.gatehouse.url}/api/v1/${path}`;
    const response = await retryOn503(async () => {
      const {
        status,
        headers: own,
        ...rest
      } = await fetch(url, {
        method,
        headers: {
          authorization: `Bearer ${actor.token}`,
          ...(body && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body && { body: JSON.stringify(body) }),
      }).then(async (answer) => ({
        status: answer.status,
        headers: answer.headers,
        text: await answer.text(),
      }));
      return { status, headers: own, body: status < 300 ? undefined : JSON.parse(rest.text) };
    });
    return response;
  }

  it.each(rows)(
    'allows $route only with $permission, and changes no user with more permissions',
    async (row) => {
      const { permission, isChange = false } = row;
      const [resource = '', action = ''] = permission.split(':');
      const holder = `only-${permission}`;
      const isOfUser = row.route.includes('{id}');
      const refused = await send(row, `not-${permission}`, below);
      expect({
        holder: outcomeOf(await send(row, holder, below)),
        'holder and other role': outcomeOf(await send(row, `user,${holder}`, below)),
        'other role': outcomeOf(refused),
        missing: refused.body.missing,
        'limited admin': outcomeOf(await send(row, 'limited', below)),
        'no role': outcomeOf(await send(row, null, below)),
        self: outcomeOf(await send(row, null, actor)),
        own: outcomeOf(await send(row, holder, actor)),
        above: isOfUser && outcomeOf(await send(row, holder, above)),
        equal: isOfUser && outcomeOf(await send(row, holder, equal)),
      }).toEqual({
        holder: '200',
        'holder and other role': '200',
        'other role': FORBIDDEN,
        missing: { [resource]: [action] },
        'limited admin': FORBIDDEN,
        'no role': FORBIDDEN,
        self: row.self,
        own: row.own ?? '200',
        above: isOfUser && (isChange ? ESCALATION : '200'),
        equal: isOfUser && '200',
      });
    },
  );

  it('lists every permission of the routes in the access matrix', async () => {
    const { body } = await stack.gatehouse.call('/api/v1/openapi.json');
    const operations = Object.entries(body.paths).flatMap(([path, item]) =>
      Object.entries(item as Record<string, Record<string, unknown>>).map(
        ([method, operation]): [string, unknown] => [
          `${method.toUpperCase()} ${path.replace('/api/v1/', '')}`,
          operation['x-required-permissions'],
        ],
      ),
    );
    const documented = operations.filter(([, required]) => required !== undefined);
    const listed = rows
      .filter(({ headers }) => !headers)
      .map(({ route, permission }) => [route, statementsOf([permission])]);
    expect(new Set(documented)).toEqual(new Set(listed));
  });
});

describe('permissions of the current user', () => {
  const permissionsOf = async ({ token }: { token: string }, gatehouse = stack.gatehouse) => {
    const { body: me } = await gatehouse.call('/api/v1/auth/me', { token });
    const { body: session } = await gatehouse.call('/api/v1/auth/session', { token });
    expect(session.user.permissions).toEqual(me.permissions);
    return me.permissions as Record<string, string[]>;
  };

  beforeEach(() => restore());

  it('are the union over the roles of the row', async () => {
    await giveRole(actor.id, 'support,moderator,unknown,constructor');
    expect(await permissionsOf(actor)).toEqual({
      user: ['list', 'get', 'ban', 'update'],
      session: ['list', 'revoke'],
      audit: [],
    });
  });

  it('are empty for a user without a role of the file', async () => {
    for (const role of [null, 'user', 'constructor', '__proto__', 'toString']) {
      await giveRole(actor.id, role);
      expect(await permissionsOf(actor)).toEqual({ user: [], session: [], audit: [] });
    }
  });

  it('are all actions for an admin and none for others without PERMISSIONS_FILE', async () => {
    await giveRole(actor.id, 'support');
    expect(await permissionsOf(actor, withoutFile)).toEqual({ user: [], session: [], audit: [] });
    await giveRole(actor.id, 'user,admin');
    expect(await permissionsOf(actor, withoutFile)).toEqual({
      user: expect.arrayContaining([...(ALL['user'] ?? []), 'impersonate-admins']),
      session: ['list', 'revoke', 'delete'],
      audit: ['list', 'export'],
    });
  });

  it('are empty in an impersonated session, which any role with user:impersonate can open', async () => {
    await giveRole(actor.id, 'admin');
    const impersonated = await impersonate(actor, below);
    await giveRole(actor.id, 'impersonator');
    await giveRole(below.id, 'admin');
    expect(await permissionsOf(impersonated)).toEqual({ user: [], session: [], audit: [] });
    expect(outcomeOf(await callUsers(impersonated, 'GET', above.id))).toBe('403 AUTH_FORBIDDEN');
    await giveRole(actor.id, 'support');
    const { body } = await stack.gatehouse.call('/api/v1/auth/me', impersonated);
    expect(body.code).toBe('AUTH_SESSION_REVOKED');
  });
});

it('ends the impersonated sessions of a user who loses only user:impersonate', async () => {
  await restore();
  await giveRole(actor.id, 'admin');
  const { sid } = await impersonate(actor, below);
  await giveRole(actor.id, 'impersonator');
  const kept = await callUsers(root, 'PUT', `${actor.id}/role`, { role: ['impersonator', 'user'] });
  expect(kept.status).toBe(200);
  const isOpen = async () =>
    (await stack.database.sql('select id from session where id = $1', [sid])).length === 1;
  expect(await isOpen()).toBe(true);
  const ended = await callUsers(root, 'PUT', `${actor.id}/role`, { role: 'support' });
  expect(ended.status).toBe(200);
  expect(await isOpen()).toBe(false);
});

describe('last user who may set roles', () => {
  const demote = (by: TestUser, target: TestUser) =>
    callUsers(by, 'PUT', `${target.id}/role`, { role: 'user' });
  const ban = (by: TestUser, target: TestUser) =>
    callUsers(by, 'POST', `${target.id}/ban`, { reason: 'spam' });

  it.each([
    ['demoting and demoting', demote, demote],
    ['banning and banning', ban, ban],
    ['demoting and banning', demote, ban],
  ])('remains after two of them try %s each other at the same time', async (_, first, second) => {
    for (let round = 0; round < 5; round += 1) {
      await restore();
      await stack.database.sql(`update "user" set role = 'user'`);
      for (const { id } of [actor, equal]) await giveRole(id, 'manager');
      const answers = await Promise.all([first(actor, equal), second(equal, actor)]);
      // On a busy machine a change may exceed its deadline.
      for (const { status } of answers) expect([200, 401, 403, 503]).toContain(status);
      await until(countTransactions, 0);
      const remaining = await stack.database.sql(
        `select id from "user" where role = 'manager' and banned is not true`,
      );
      const changed = answers.filter(({ status }) => status === 200).length;
      expect(changed).toBeLessThan(2);
      expect(remaining.length).toBeGreaterThan(0);
      if (changed === 1) expect(remaining).toHaveLength(1);
    }
  });
});

describe('escalation', () => {
  beforeEach(async () => {
    await restore();
    await giveRole(actor.id, 'manager');
  });

  const setRole = (target: TestUser, role: string | string[]) =>
    callUsers(actor, 'PUT', `${target.id}/role`, { role });

  it.each<[string, () => TestUser, string | string[], string]>([
    ['themselves a role with more', () => actor, 'admin', '403 ROLE_ESCALATION'],
    [
      'themselves an additional role with more',
      () => actor,
      ['manager', 'admin'],
      '403 ROLE_ESCALATION',
    ],
    ['another user a role with more', () => below, 'admin', '403 ROLE_ESCALATION'],
    [
      'another user a role with one more permission',
      () => below,
      'only-audit:list',
      '403 ROLE_ESCALATION',
    ],
    ['another user their own role', () => below, 'manager', '200'],
    ['another user a role with less', () => below, ['user', 'support'], '200'],
    ['a role to a user who may do more', () => above, ['admin', 'support'], '403 ROLE_ESCALATION'],
    ['themselves a role with less', () => actor, 'support', '409 SELF_DEMOTION'],
    ['a role that ROLES lacks', () => below, ['support', 'owner'], '400 VALIDATION_ERROR'],
  ])('decides whether a manager may give %s', async (_what, target, role, expected) => {
    const { id } = target();
    const [before] = await stack.database.sql('select role from "user" where id = $1', [id]);
    expect(outcomeOf(await setRole(target(), role))).toBe(expected);
    const [after] = await stack.database.sql('select role from "user" where id = $1', [id]);
    expect(after).toEqual(expected === '200' ? { role: [role].flat().join(',') } : before);
  });

  it('refuses a change of a user with more permissions, even if it would change no value', async () => {
    await stack.database.sql('update "user" set banned = true where id = $1', [above.id]);
    expect(outcomeOf(await callUsers(actor, 'DELETE', `${above.id}/ban`))).toBe(
      '403 ROLE_ESCALATION',
    );
    expect(outcomeOf(await callUsers(actor, 'PATCH', above.id, {}))).toBe('403 ROLE_ESCALATION');
  });

  it('responds with 404 to a change of a user who does not exist', async () => {
    expect(outcomeOf(await callUsers(actor, 'POST', 'nobody/ban', {}))).toBe('404 USER_NOT_FOUND');
    expect(outcomeOf(await callUsers(actor, 'DELETE', 'nobody/sessions'))).toBe(
      '404 USER_NOT_FOUND',
    );
  });

  it('raises no permissions in 20 rounds of 20 parallel attempts', async () => {
    // `actor` and `equal` are managers, `below` has no permissions, `above` is the only admin.
    await stack.database.sql(`update "user" set role = 'user' where role = 'admin'`);
    for (const [user, role] of [
      [actor, 'manager'],
      [equal, 'manager'],
      [above, 'admin'],
    ] as const) {
      await giveRole(user.id, role);
    }
    const restoreRound = await takeSnapshot(stack.database);
    const put = (by: TestUser, target: TestUser, role: string | string[]) => () =>
      callUsers(by, 'PUT', `${target.id}/role`, { role });
    const attempts = [
      put(actor, actor, 'admin'),
      put(actor, below, 'admin'),
      put(actor, below, ['manager', 'admin']),
      put(actor, equal, 'admin'),
      put(equal, actor, 'admin'),
      put(below, below, 'manager'),
      put(below, actor, 'admin'),
      put(actor, above, 'user'),
      () => callUsers(actor, 'POST', `${above.id}/ban`, {}),
      () => callUsers(equal, 'PATCH', above.id, { name: 'Changed' }),
      () => callUsers(equal, 'DELETE', `${above.id}/sessions`),
      () => callUsers(below, 'POST', `${actor.id}/ban`, {}),
    ];
    // What the admin does meanwhile, and what managers may do to each other.
    const changes = [
      put(above, actor, 'support'),
      put(above, equal, 'moderator'),
      put(above, below, 'moderator'),
      put(above, below, 'user'),
      put(actor, equal, 'user'),
      put(equal, actor, 'user'),
      put(actor, root, 'manager'),
      put(equal, below, ['support', 'moderator']),
    ];
    const [untouched] = await stateOf(above.id);
    const all = [...attempts, ...changes];
    let changed = 0;
    for (let round = 0; round < 20; round += 1) {
      // A change may run on after a response 503.
      await until(countTransactions, 0);
      await restoreRound();
      const rotated = [...all.slice(round), ...all.slice(0, round)];
      const answers = await Promise.all(
        rotated.map(async (attempt) => [attempt, await attempt()] as const),
      );
      for (const [attempt, { status }] of answers) {
        expect([200, 401, 403, 409, 503]).toContain(status);
        if (attempts.includes(attempt)) expect(status).not.toBe(200);
        else if (status === 200) changed += 1;
      }
      await until(countTransactions, 0);
      const [state] = await stateOf(above.id);
      expect(state).toEqual(untouched);
      const roles = await stack.database.sql<{ role: string }>(
        'select role from "user" where id = any($1)',
        [[actor.id, equal.id, below.id, root.id]],
      );
      for (const { role } of roles) {
        expect(['user', 'manager', 'support', 'moderator', 'support,moderator']).toContain(role);
      }
    }
    // Some rounds must succeed. Otherwise this test would check nothing.
    expect(changed).toBeGreaterThan(20);
  }, 120_000);

  it('refuses a manager who is demoted while a change waits for a row lock', async () => {
    const answer = await whileLocked(
      locksOf(below),
      () => setRole(below, 'manager'),
      () => giveRole(actor.id, 'only-user:set-role'),
    );
    expect(outcomeOf(answer)).toBe('403 ROLE_ESCALATION');
  });

  it('delays a demotion of the manager between the check and the commit of a change', async () => {
    const clients = [0, 1].map(
      () => new Client({ connectionString: stack.database.directUrl }),
    ) as [Client, Client];
    const [blocker, other] = clients;
    try {
      for (const client of clients) await client.connect();
      // The change has passed its check when it writes its audit event.
      await blocker.query('begin; lock table gatehouse.audit_event in share mode');
      const change = setRole(below, 'support');
      await until(countLockWaits, 1);
      const demotion = other.query(`update "user" set role = 'user' where id = $1`, [actor.id]);
      await until(countLockWaits, 2);
      await blocker.query('commit');
      expect(outcomeOf(await change)).toBe('200');
      await demotion;
    } finally {
      for (const client of clients) await client.end();
    }
  });

  it.each([
    ['sets a role', 'PUT', '/role', { role: 'user' }],
    ['changes a name', 'PATCH', '', { name: 'Changed' }],
    ['bans a user', 'POST', '/ban', {}],
    ['ends all sessions', 'DELETE', '/sessions', undefined],
  ])(
    'refuses a manager who %s of a user who is promoted while the change waits',
    async (_what, method, path, body) => {
      const client = new Client({ connectionString: stack.database.directUrl });
      await client.connect();
      try {
        await client.query('begin');
        await client.query(`update "user" set role = 'admin' where id = $1`, [below.id]);
        const refused = callUsers(actor, method, `${below.id}${path}`, body);
        await until(async () => (await countLockWaits()) > 0, true);
        await client.query('commit');
        expect(outcomeOf(await refused)).toBe('403 ROLE_ESCALATION');
      } finally {
        await client.end();
      }
      expect((await stateOf(below.id))[0]).toMatchObject({ user: { role: 'admin' } });
    },
  );
});

const countTransactions = async () => {
  const [row] = await stack.database.sql<{ count: number }>(
    `select count(*)::int as count from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'`,
  );
  return row?.count ?? 0;
};

const countLockWaits = async () => {
  const [row] = await stack.database.sql<{ count: number }>(
    `select count(*)::int as count from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'`,
  );
  return row?.count ?? 0;
};
