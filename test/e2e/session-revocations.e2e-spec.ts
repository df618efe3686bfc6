import { LOCKS } from '../../src/database/advisory-locks.js';
import { administrationOf, type RowLock, sidOf } from '../support/administration.js';
import { writePermissions } from '../support/permissions-file.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;

beforeAll(async () => {
  stack = await startStack();
  admin = await newAdmin();
});
afterAll(() => stack.end());

const { newAdmin, impersonate } = administrationOf(() => stack);

const revoke = (body: unknown, actor: { token: string } = admin) =>
  stack.gatehouse.call('/api/v1/sessions/revocations', {
    method: 'POST',
    token: actor.token,
    body,
  });

const me = async ({ token }: { token: string }) =>
  (await stack.gatehouse.call('/api/v1/auth/me', { token })).status;

async function signInAgain(user: TestUser): Promise<{ sid: string; token: string }> {
  const { sessionToken } = await stack.authWithSid.signIn(user);
  const token = await stack.authWithSid.tokenFor(sessionToken);
  return { sid: String(claimsOf(token)['sid']), token };
}

const sessionIds = async (where = 'true') => {
  const rows = await stack.database.sql<{ id: string }>(
    `select id from session where ${where} order by id`,
  );
  return rows.map(({ id }) => id);
};

const eventsOf = (userId: string) =>
  stack.database.sql(
    `select action, actor_id, target_user_id, after, reason from gatehouse.audit_event
     where target_user_id = $1 order by id`,
    [userId],
  );

const moveTo = (ip: string, ids: string[]) =>
  stack.database.sql('update session set "ipAddress" = $1 where id = any($2)', [ip, ids]);

/** Sessions of many users, by SQL, from one address. */
async function fill(ip: string, users: number, sessionsEach: number): Promise<void> {
  await stack.database.sql(
    `with people as (
      insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
      select md5($1 || n), 'Filled', md5($1 || n) || '@example.org', true, now(), now()
      from generate_series(1, $2::int) n returning id
    )
    insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt", "ipAddress")
    select md5(people.id || s), 'token-' || md5(people.id || s), people.id, now() + interval '1 day',
      now() - s * interval '1 minute', now(), $1
    from people, generate_series(1, $3::int) s`,
    [ip, users, sessionsEach],
  );
}

describe('revocation of sessions by filter', () => {
  it('ends the sessions from a network at once, with one audit event for each user', async () => {
    const [ada, grace, other] = [
      await signUp(stack.authWithSid),
      await signUp(stack.authWithSid),
      await signUp(stack.authWithSid),
    ];
    const second = await signInAgain(ada);
    await moveTo('203.0.113.5', [sidOf(ada), second.sid]);
    await moveTo('::ffff:203.0.113.6', [sidOf(grace)]);
    // The tokens are in the cache.
    for (const someone of [ada, second, grace, other]) expect(await me(someone)).toBe(200);

    const filter = { ip: '203.0.113.0/24' };
    const dry = await revoke({ filter, dryRun: true });
    expect([dry.status, dry.body]).toEqual([
      200,
      expect.objectContaining({
        matched: 3,
        matchedIsEstimate: false,
        revoked: 0,
        skipped: 0,
        users: 2,
        more: false,
        residual: null,
      }),
    ]);
    expect(dry.body.sample.map(({ id }: { id: string }) => id).toSorted()).toEqual(
      [sidOf(ada), second.sid, sidOf(grace)].toSorted(),
    );
    expect(await me(ada)).toBe(200);
    expect(await eventsOf(ada.id)).toEqual([]);

    const { status, body } = await revoke({ filter, expected: 3, reason: 'abuse' });
    expect(status).toBe(200);
    expect(body).toMatchObject({ matched: 3, revoked: 3, users: 2, more: false });
    // Tokens without a session id can outlive their session, until this time.
    expect(Date.parse(body.residual)).toBeGreaterThan(Date.now());
    for (const someone of [ada, second, grace]) expect(await me(someone)).toBe(401);
    expect(await me(other)).toBe(200);
    for (const [user, revoked] of [
      [ada, 2],
      [grace, 1],
    ] as const) {
      expect(await eventsOf(user.id)).toEqual([
        {
          action: 'session.revoked_by_filter',
          actor_id: admin.id,
          target_user_id: user.id,
          after: { revoked, filter: { ip: '203.0.113.0/24', state: 'active' } },
          reason: 'abuse',
        },
      ]);
    }
    expect((await revoke({ filter })).body).toMatchObject({ matched: 0, revoked: 0, users: 0 });
    expect(await eventsOf(ada.id)).toHaveLength(1);
  });

  it.each<[string, unknown, string]>([
    ['no filter', {}, 'filter'],
    ['a filter that is null', { filter: null }, 'filter'],
    ['an empty filter', { filter: {} }, 'filter'],
    ['a filter that is a list', { filter: [{ userId: 'a' }] }, 'filter'],
    ['a filter that is a text', { filter: 'all' }, 'filter'],
    ['a filter with the default state only', { filter: { state: 'active' } }, 'filter'],
    ['a misspelled condition', { filter: { userid: 'a' } }, 'filter.userid'],
    ['a misspelled condition beside another', { filter: { userId: 'a', iP: '::' } }, 'filter.iP'],
    ['a condition beside the filter', { filter: { all: true }, userId: 'a' }, 'userId'],
    ['a parameter of the list', { filter: { userId: 'a', limit: 5 } }, 'filter.limit'],
    ['the name of an inherited field', { filter: { userId: 'a', toString: 1 } }, 'filter.toString'],
    ['a condition that is null', { filter: { userId: 'a', ip: null } }, 'filter.ip'],
    ['an empty user id', { filter: { userId: '' } }, 'filter.userId'],
    ['a list of user ids', { filter: { userId: ['a'] } }, 'filter.userId'],
    ['an invalid network', { filter: { ip: '10.0.0.0/99' } }, 'filter.ip'],
    ['all that is false', { filter: { all: false } }, 'filter.all'],
    ['all that is a text', { filter: { all: 'true' } }, 'filter.all'],
    ['all with a condition', { filter: { all: true, ip: '10.0.0.1' } }, 'filter'],
    ['all with a state', { filter: { all: true, state: 'expired' } }, 'filter'],
    [
      'times in the wrong order',
      { filter: { createdFrom: '2026-02-01T00:00:00Z', createdTo: '2026-01-01T00:00:00Z' } },
      'createdFrom',
    ],
    ['a negative expectation', { filter: { all: true }, expected: -1 }, 'expected'],
    ['an expectation that is a text', { filter: { all: true }, expected: '3' }, 'expected'],
    ['a dry run that is a text', { filter: { all: true }, dryRun: 'true' }, 'dryRun'],
    ['a misspelled dry run', { filter: { all: true }, dryrun: true }, 'dryrun'],
    ['an empty reason', { filter: { all: true }, reason: '' }, 'reason'],
  ])('refuses %s and ends nothing', async (_what, body, field) => {
    const before = await sessionIds();
    const answer = await revoke(body);
    expect([answer.status, answer.body.code]).toEqual([400, 'VALIDATION_ERROR']);
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toContain(field);
    expect(await sessionIds()).toEqual(before);
  });

  it('ends nothing if another number of sessions matches than expected', async () => {
    const ada = await signUp(stack.authWithSid);
    for (const expected of [0, 2]) {
      const { status, body } = await revoke({ filter: { userId: ada.id }, expected });
      expect([status, body.code, body.matched]).toEqual([409, 'COUNT_MISMATCH', 1]);
    }
    const dry = await revoke({ filter: { userId: ada.id }, expected: 2, dryRun: true });
    expect(dry.body.code).toBe('COUNT_MISMATCH');
    const right = await revoke({ filter: { userId: ada.id }, expected: 1, dryRun: true });
    expect(right.body).toMatchObject({ matched: 1, revoked: 0 });
    expect(await me(ada)).toBe(200);
  });

  it('ends impersonated and expired sessions by filter', async () => {
    const ada = await signUp(stack.authWithSid);
    const open = await impersonate(admin, ada);
    const impersonated = await revoke({ filter: { impersonated: true, userId: ada.id } });
    expect(impersonated.body).toMatchObject({ revoked: 1, users: 1 });
    expect([await me(open), await me(ada)]).toEqual([401, 200]);
    const expired = await signInAgain(ada);
    const expire = `update session set "expiresAt" = now() - interval '1 hour' where id = $1`;
    await stack.database.sql(expire, [expired.sid]);
    const filter = { userId: ada.id, state: 'expired' };
    expect((await revoke({ filter })).body).toMatchObject({ matched: 1, revoked: 1 });
    expect(await sessionIds(`"userId" = '${ada.id}'`)).toEqual([sidOf(ada)]);
  });

  it('keeps the own session unless the request includes it', async () => {
    const boss = await newAdmin();
    const second = await signInAgain(boss);
    await signInAgain(boss);
    const filter = { userId: boss.id };
    const kept = await revoke({ filter, expected: 3 }, boss);
    expect(kept.body).toMatchObject({ matched: 3, revoked: 2, users: 1, more: false });
    expect([await me(boss), await me(second)]).toEqual([200, 401]);
    const ended = await revoke({ filter, includeOwn: true }, boss);
    expect(ended.body).toMatchObject({ matched: 1, revoked: 1, users: 1 });
    expect(await me(boss)).toBe(401);
    expect(await eventsOf(boss.id)).toHaveLength(2);
  });

  it('keeps every session of the caller for a token without a session id', async () => {
    const boss = await newAdmin(stack.auth);
    await signInAgain(boss);
    const filter = { userId: boss.id };
    expect((await revoke({ filter }, boss)).body).toMatchObject({ matched: 2, revoked: 0 });
    const ended = await revoke({ filter, includeOwn: true }, boss);
    expect(ended.body).toMatchObject({ matched: 2, revoked: 2, users: 1 });
    expect(await me(boss)).toBe(401);
  });

  it('refuses an impersonated admin and a user without the role', async () => {
    const boss = await newAdmin();
    const open = await impersonate(admin, await signUp(stack.authWithSid));
    await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [open.id]);
    const ada = await signUp(stack.authWithSid);
    for (const caller of [open, ada]) {
      const { status, body } = await revoke({ filter: { userId: boss.id } }, caller);
      expect([status, body.code]).toEqual([403, 'AUTH_FORBIDDEN']);
    }
    expect(await me(boss)).toBe(200);
  });
});

describe('revocation of many sessions', () => {
  it('ends every session once, with one event for each user and call, in 20 calls at the same time', async () => {
    await fill('198.51.100.1', 400, 3);
    const filter = { ip: '198.51.100.1' };
    const newcomer = await signUp(stack.authWithSid);
    const calls = Array.from({ length: 20 }, () => revoke({ filter, reason: 'race' }));
    // Users sign in meanwhile.
    const signIns = Array.from({ length: 5 }, () => signInAgain(newcomer));
    const answers = await Promise.all(calls);
    const tokens = await Promise.all(signIns);
    let failed = answers.filter(({ status }) => status !== 200);
    // A busy machine can reach the lock timeout. Such a call has ended nothing.
    for (const { status } of failed) expect(status).toBe(503);
    for (let attempt = 0; failed.length > 0 && attempt < 5; attempt += 1) {
      const again = await revoke({ filter, reason: 'race' });
      answers.push(again);
      failed = again.status === 200 ? [] : [again];
    }
    const sum = answers
      .filter(({ status }) => status === 200)
      .reduce((total, { body }) => total + Number(body.revoked), 0);
    const [events] = await stack.database.sql<{ users: number; events: number; ended: number }>(
      `select count(distinct target_user_id)::int as users, count(*)::int as events,
         sum((after->>'revoked')::int)::int as ended
       from gatehouse.audit_event where reason = 'race'`,
    );
    expect(await sessionIds(`"ipAddress" = '198.51.100.1'`)).toEqual([]);
    expect(events).toEqual({ users: 400, events: 400, ended: 1200 });
    expect(sum).toBeLessThanOrEqual(1200);
    for (const token of [newcomer, ...tokens]) expect(await me(token)).toBe(200);
  });

  it('ends at most 10,000 sessions in a call, says that more remain, and keeps the own until then', async () => {
    const boss = await newAdmin();
    await fill('198.51.100.2', 21, 500);
    await fill('198.51.100.3', 1, 1700);
    await moveTo('198.51.100.3', [sidOf(boss)]);
    const request = { filter: { ip: '198.51.100.2/31' }, includeOwn: true, reason: 'many' };
    const dry = await revoke({ ...request, dryRun: true }, boss);
    expect(dry.body).toMatchObject({ matchedIsEstimate: true, more: true });
    expect(dry.body.matched).toBeGreaterThan(10_000);
    expect(dry.body.sample).toHaveLength(10);
    const wrong = await revoke({ ...request, expected: 12_200 }, boss);
    expect([wrong.body.code, wrong.body.matched]).toEqual(['COUNT_MISMATCH', 12_201]);

    const first = await revoke({ ...request, expected: 12_201 }, boss);
    expect(first.body).toMatchObject({
      matched: 12_201,
      matchedIsEstimate: false,
      revoked: 10_000,
      more: true,
    });
    expect(await me(boss)).toBe(200);
    const second = await revoke(request, boss);
    expect(second.body).toMatchObject({ matched: 2201, revoked: 2201, more: false });
    expect(await me(boss)).toBe(401);
    const [events] = await stack.database.sql<{ users: number; ended: number }>(
      `select count(distinct target_user_id)::int as users,
         sum((after->>'revoked')::int)::int as ended
       from gatehouse.audit_event where reason = 'many'`,
    );
    expect(events).toEqual({ users: 23, ended: 12_201 });
  });

  it('says how many sessions have ended if a lock stops it in between', async () => {
    await fill('198.51.100.9', 2, 200);
    const filter = { ip: '198.51.100.9' };
    const newestFirst = await stack.database.sql<{ user: string }>(
      'select "userId" as user from session where "ipAddress" = $1 order by "createdAt" desc, id desc',
      [filter.ip],
    );
    const [first, second] = new Set(newestFirst.map(({ user }) => user));
    await stack.database.sql('begin');
    await stack.database.sql('select from session where "userId" = $1 for update', [second]);
    try {
      const { status, body } = await revoke({ filter });
      expect([status, body]).toEqual([
        200,
        expect.objectContaining({ matched: 400, revoked: 200, users: 1, more: true }),
      ]);
    } finally {
      await stack.database.sql('rollback');
    }
    expect(await sessionIds(`"userId" = '${first}'`)).toEqual([]);
    expect((await revoke({ filter })).body).toMatchObject({ revoked: 200, more: false });
  });

  it('ends the own session after all others, because the right to end them would end', async () => {
    const boss = await newAdmin();
    await fill('198.51.100.8', 2, 200);
    await moveTo('198.51.100.8', [sidOf(boss)]);
    const { status, body } = await revoke(
      { filter: { ip: '198.51.100.8' }, includeOwn: true },
      boss,
    );
    expect([status, body.revoked, body.users, body.more]).toEqual([200, 401, 3, false]);
    expect(await me(boss)).toBe(401);
  });

  it('signs out every user except the caller', async () => {
    const boss = await newAdmin();
    const total = (await sessionIds(`"expiresAt" > now()`)).length;
    const { body } = await revoke({ filter: { all: true }, expected: total }, boss);
    expect(body).toMatchObject({ matched: total, revoked: total - 1, more: false });
    expect(await sessionIds(`"expiresAt" > now()`)).toEqual([sidOf(boss)]);
    expect([await me(boss), await me(admin)]).toEqual([200, 401]);
  });
});

describe('revocation by filter by a user with few permissions', () => {
  let restricted: Stack;
  beforeAll(async () => {
    restricted = await startStack(
      {},
      writePermissions({
        admin: { user: ['list', 'ban'], session: ['list', 'revoke'] },
        support: { session: ['list', 'revoke'] },
        guard: { session: ['revoke'] },
      }),
    );
  });
  afterAll(() => restricted.end());

  const revokeAs = (caller: TestUser, body: object) =>
    restricted.gatehouse.call('/api/v1/sessions/revocations', {
      method: 'POST',
      token: caller.token,
      body,
    });

  async function newUser(role: string): Promise<TestUser> {
    const user = await signUp(restricted.authWithSid);
    const set = 'update "user" set role = $1 where id = $2';
    await restricted.database.sql(set, [role, user.id]);
    return user;
  }

  const isSignedIn = async ({ token }: TestUser) =>
    (await restricted.gatehouse.call('/api/v1/auth/me', { token })).status === 200;

  it('keeps and counts the sessions of users who have more permissions', async () => {
    const [caller, colleague] = [await newUser('support'), await newUser('support')];
    const [boss, ada] = [await newUser('admin'), await newUser('user')];
    const filter = { all: true };
    const dry = await revokeAs(caller, { filter, dryRun: true });
    expect(dry.body).toMatchObject({ matched: 4, revoked: 0, skipped: 1, users: 2 });
    const { body } = await revokeAs(caller, { filter, expected: 4 });
    expect(body).toMatchObject({ matched: 4, revoked: 2, skipped: 1, users: 2, more: false });
    const signedIn = [];
    for (const user of [caller, colleague, boss, ada]) signedIn.push(await isSignedIn(user));
    expect(signedIn).toEqual([true, false, true, false]);
  });

  it('shows no session to a user who may only end them', async () => {
    const [guard, support] = [await newUser('guard'), await newUser('support')];
    const request = { filter: { userId: support.id }, dryRun: true };
    expect((await revokeAs(guard, request)).body).toMatchObject({ matched: 1, sample: [] });
    const { body } = await revokeAs(support, request);
    expect(body.sample).toHaveLength(1);
  });

  describe('change while the revocation waits for a lock', () => {
    const SKIPPED = [200, 0, 1];
    const FORBIDDEN = [403, 'AUTH_FORBIDDEN'];
    const SIGNED_OUT = [401, 'AUTH_SESSION_REVOKED'];
    const setRole = (role: string) => `update "user" set role = '${role}' where id = $1`;
    const ban = 'update "user" set banned = true where id = $1';
    const signOut = 'delete from session where "userId" = $1';

    it.each<['caller' | 'target', string, string, 'administration' | 'session', unknown[]]>([
      ['target', 'gets more permissions', setRole('admin'), 'administration', SKIPPED],
      ['caller', 'gets fewer permissions', setRole('guard'), 'administration', SKIPPED],
      ['caller', 'loses the permission', setRole('user'), 'administration', FORBIDDEN],
      ['caller', 'is banned', ban, 'administration', FORBIDDEN],
      ['caller', 'is signed out before the check', signOut, 'administration', SIGNED_OUT],
      ['caller', 'is signed out after the check', signOut, 'session', SIGNED_OUT],
    ])('ends nothing if the %s %s', async (who, _what, sql, kind, expected) => {
      const [caller, target] = [await newUser('support'), await newUser('support')];
      const changed = who === 'caller' ? caller : target;
      const lock: RowLock =
        kind === 'session'
          ? ['select 1 from session where "userId" = $1 for update', target.id]
          : ['select pg_advisory_xact_lock($1)', String(LOCKS.administration)];
      const answer = await administrationOf(() => restricted).whileLocked(
        [lock],
        () => revokeAs(caller, { filter: { userId: target.id } }),
        () => restricted.database.sql(sql, [changed.id]),
      );
      const { code, revoked, skipped } = answer.body;
      expect([answer.status, ...(code ? [code] : [revoked, skipped])]).toEqual(expected);
      expect(await isSignedIn(target)).toBe(true);
    });
  });
});
