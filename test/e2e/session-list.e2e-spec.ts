import { encodeCursor } from '../../src/validation/cursor.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { administrationOf, sidOf } from '../support/administration.js';
import { idsByCursor } from '../support/list-pages.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;
let ada: TestUser;
let grace: TestUser;

const { newAdmin, impersonate } = administrationOf(() => stack);

/** Real sessions, to which SQL gives other addresses and times. */
const ADDRESSES: Record<string, string | null> = {
  v4: '203.0.113.7',
  neighbour: '203.0.113.200',
  mapped: '::ffff:203.0.113.9',
  mappedHex: '0:0:0:0:0:ffff:cb00:710a',
  v6: '2001:0db8:0001:0002:0000:0000:0000:0000',
  v6short: '2001:DB8:1:3::1',
  empty: '',
  word: 'unknown',
  network: '203.0.113.0/24',
  list: '203.0.113.7, 10.0.0.1',
  zone: 'fe80::1%eth0',
  tooLarge: '203.0.113.256',
  long: `203.0.113.7${' '.repeat(3000)}`,
  missing: null,
};
const sids: Record<string, string> = {};
const sidsOf = (...names: string[]) => names.map((name) => sids[name] ?? '').toSorted();

beforeAll(async () => {
  stack = await startStack();
  admin = await newAdmin();
  ada = await signUp(stack.authWithSid, 'Ada Lovelace');
  grace = await signUp(stack.authWithSid, 'Grace Hopper');
  for (const [index, [name, address]] of Object.entries(ADDRESSES).entries()) {
    const { session } = await signInAgain(ada);
    sids[name] = session;
    await stack.database.sql(
      `update session set "ipAddress" = $2, "createdAt" = timestamptz '2026-01-01Z' + $3 * interval '1 hour',
        "updatedAt" = now() - $3 * interval '1 minute' where id = $1`,
      [session, address, index],
    );
  }
});
afterAll(() => stack.end());

/** Signs the user in at Better-Auth again, for one more session. */
async function signInAgain(user: TestUser): Promise<{ session: string; token: string }> {
  const { sessionToken } = await stack.authWithSid.signIn(user);
  const token = await stack.authWithSid.tokenFor(sessionToken);
  return { session: String(claimsOf(token)['sid']), token };
}

/** PostgreSQL reads the word as a time, but it is not one that a row has. */
const FORGED_CURSOR = encodeCursor({ sort: '-updatedAt', value: 'yesterday', id: 'x' });

const list = (query = '', actor: { token: string } = admin) =>
  stack.gatehouse.call(`/api/v1/sessions?${query}`, { token: actor.token });

const idsOf = (body: { items: { id: string }[] }) => body.items.map(({ id }) => id);

describe('list of all sessions', () => {
  it('shows each session with its user, without the session token', async () => {
    const { status, body } = await list(`userId=${grace.id}`);
    expect(status).toBe(200);
    expect(body.items).toEqual([
      expect.objectContaining({
        id: sidOf(grace),
        userId: grace.id,
        current: false,
        user: { id: grace.id, email: grace.email, name: 'Grace Hopper' },
      }),
    ]);
    expect(JSON.stringify(body)).not.toContain(grace.session);
    expect(body.pagination).toMatchObject({ page: 1, limit: 20, total: 1, nextCursor: null });
  });

  it('marks the session of the request and counts every active session', async () => {
    const { body } = await list('limit=100');
    expect(body.pagination.total).toBe(Object.keys(ADDRESSES).length + 3);
    expect(body.items.filter(({ current }: { current: boolean }) => current)).toEqual([
      expect.objectContaining({ id: sidOf(admin) }),
    ]);
  });

  const IN_NETWORK = ['v4', 'neighbour', 'mapped', 'mappedHex'];
  it.each([
    ['203.0.113.7', ['v4']],
    ['203.0.113.7/32', ['v4']],
    ['203.0.113.0/24', IN_NETWORK],
    ['203.0.113.99/24', IN_NETWORK],
    ['203.0.113.0/25', ['v4', 'mapped', 'mappedHex']],
    ['200.0.0.0/5', IN_NETWORK],
    ['::ffff:203.0.113.9', ['mapped']],
    ['::ffff:203.0.113.0/120', IN_NETWORK],
    ['2001:db8:1:2::', ['v6']],
    ['2001:db8:1:2::/64', ['v6']],
    ['2001:DB8:1::/48', ['v6', 'v6short']],
    ['2001:db8:1:3::1', ['v6short']],
    ['2001:db8:1:3::2', []],
    ['198.51.100.0/24', []],
  ])('finds the sessions from %s, and survives texts that are no address', async (ip, names) => {
    const { status, body } = await list(`userId=${ada.id}&ip=${encodeURIComponent(ip)}`);
    expect(status).toBe(200);
    expect(idsOf(body).toSorted()).toEqual(sidsOf(...names));
    expect(body.pagination.total).toBe(names.length);
  });

  it.each(['-createdAt', 'createdAt', '-updatedAt', 'expiresAt'])(
    'returns every session once by cursor, in the same order as PostgreSQL (sort=%s)',
    async (sort) => {
      const column = sort.replace('-', '');
      const direction = sort.startsWith('-') ? 'desc' : 'asc';
      const rows = await stack.database.sql<{ id: string }>(
        `select id from session order by "${column}" ${direction}, id ${direction}`,
      );
      const byCursor = await idsByCursor(
        (cursor) => list(`sort=${sort}&limit=4&total=none${cursor}`),
        100,
      );
      expect(byCursor).toEqual(rows.map(({ id }) => id));
      const byPage = await list(`sort=${sort}&limit=4&page=2`);
      expect(idsOf(byPage.body)).toEqual(rows.slice(4, 8).map(({ id }) => id));
    },
  );

  it('filters by time, state and impersonation', async () => {
    const { sid } = await impersonate(admin, grace);
    expect(idsOf((await list('impersonated=true')).body)).toEqual([sid]);
    expect(idsOf((await list(`userId=${grace.id}&impersonated=false`)).body)).toEqual([
      sidOf(grace),
    ]);
    const [item] = (await list('impersonated=true')).body.items;
    expect(item).toMatchObject({ impersonatedBy: admin.id, user: { id: grace.id } });

    const early = await list('createdTo=2026-01-01T01:00:00Z');
    expect(idsOf(early.body).toSorted()).toEqual(sidsOf('v4', 'neighbour'));
    const between = await list('createdFrom=2026-01-01T01:00:00Z&createdTo=2026-01-01T02:00:00Z');
    expect(between.body.pagination.total).toBe(2);

    const old = await signInAgain(grace);
    const expire = `update session set "expiresAt" = now() - interval '1 hour' where id = $1`;
    await stack.database.sql(expire, [old.session]);
    expect(idsOf((await list('state=expired')).body)).toEqual([old.session]);
    expect(idsOf((await list(`userId=${grace.id}`)).body)).not.toContain(old.session);
  });

  it.each([
    ['ip=', 'ip'],
    ['ip=203.0.113', 'ip'],
    ['ip=203.0.113.7%2F33', 'ip'],
    ['ip=203.0.113.7%2F', 'ip'],
    ['ip=203.0.113.7%2F08', 'ip'],
    ['ip=203.0.113.7%2F24%2F24', 'ip'],
    ['ip=2001:db8::%2F129', 'ip'],
    ['ip=fe80::1%25eth0', 'ip'],
    ['ip=example.com', 'ip'],
    ['ip=1.2.3.4&ip=1.2.3.5', 'ip'],
    ['userId=', 'userId'],
    ['createdFrom=yesterday', 'createdFrom'],
    ['createdFrom=2026-02-01T00:00:00Z&createdTo=2026-01-01T00:00:00Z', 'createdFrom'],
    ['impersonated=yes', 'impersonated'],
    ['state=all', 'state'],
    ['sort=expiresAt;drop', 'sort'],
    ['limit=101', 'limit'],
    ['cursor=abc', 'cursor'],
    [`sort=-updatedAt&cursor=${FORGED_CURSOR}`, 'cursor'],
    ['colour=red', 'colour'],
    ['all=true', 'all'],
  ])('refuses the query %s and names the parameter', async (query, field) => {
    const { status, body } = await list(query);
    expect([status, body.code]).toEqual([400, 'VALIDATION_ERROR']);
    expect(body.errors.map((error: { field: string }) => error.field)).toContain(field);
  });

  it('lets a role without rights on the schema of Gatehouse store a session', async () => {
    const role = `signer_${grace.id.toLowerCase()}`;
    await stack.database.sql(`create role ${role}; grant insert, select on session to ${role}`);
    try {
      await stack.database.sql(`set role ${role}`);
      const insert = `insert into session (id, token, "userId", "expiresAt", "updatedAt", "ipAddress")
        values ($1, 'token-' || md5($1), $2, now(), now(), '::ffff:198.51.100.77')`;
      await stack.database.sql(insert, [`by-${role}`, grace.id]);
    } finally {
      await stack.database.sql('reset role');
      await stack.database.sql(`drop owned by ${role}; drop role ${role}`);
    }
    const { body } = await list('ip=198.51.100.77&state=expired');
    expect(idsOf(body)).toEqual([`by-${role}`]);
  });

  it('explains what an invalid address should be', async () => {
    const { body } = await list('ip=here');
    expect(body.errors[0].message).toBe(
      'ip must be an IP address such as 203.0.113.7, or a network such as 203.0.113.0/24',
    );
  });
});

describe('sessions in the user list', () => {
  const users = (query: string) =>
    stack.gatehouse.call(`/api/v1/users?${query}`, { token: admin.token });

  it('adds the last sign-in and the number of active sessions only on request', async () => {
    const plain = (await users(`q=${ada.email}`)).body.items[0];
    expect(plain).not.toHaveProperty('activeSessions');
    expect(plain).not.toHaveProperty('lastSignInAt');
    const [row] = await stack.database.sql<{ last: Date; active: number }>(
      `select max("createdAt") as last, count(*)::int as active from session where "userId" = $1`,
      [ada.id],
    );
    const [item] = (await users(`q=${ada.email}&include=sessions`)).body.items;
    expect(item).toMatchObject({
      lastSignInAt: row?.last.toISOString(),
      activeSessions: row?.active,
    });
  });

  it('finds dormant users, and counts neither impersonated nor ended sessions as a sign-in', async () => {
    const dormant = await signUp(stack.authWithSid, 'Dormant One');
    const never = await signUp(stack.authWithSid, 'Dormant Two');
    const recent = await signUp(stack.authWithSid, 'Dormant Not');
    await stack.database.sql(
      `update session set "createdAt" = '2025-03-04T05:06:07Z' where "userId" = $1`,
      [dormant.id],
    );
    await impersonate(admin, dormant);
    await stack.authWithSid.signOut(never.session);
    const { body } = await users(
      'q=Dormant&include=sessions&sort=createdAt&signedInBefore=2026-01-01T00:00:00Z',
    );
    expect(body.items).toEqual([
      expect.objectContaining({
        id: dormant.id,
        lastSignInAt: '2025-03-04T05:06:07.000Z',
        activeSessions: 2,
      }),
      expect.objectContaining({ id: never.id, lastSignInAt: null, activeSessions: 0 }),
    ]);
    expect(body.pagination.total).toBe(2);
    expect(idsOf((await users('q=Dormant')).body)).toContain(recent.id);
    const later = await users('q=Dormant&signedInBefore=2099-01-01T00:00:00Z');
    expect(later.body.pagination.total).toBe(3);
  });

  it.each([
    ['include=accounts', 'include'],
    ['include=', 'include'],
    ['signedInBefore=long+ago', 'signedInBefore'],
  ])('refuses the query %s and names the parameter', async (query, field) => {
    const { status, body } = await users(query);
    expect([status, body.errors[0].field]).toEqual([400, field]);
  });
});
