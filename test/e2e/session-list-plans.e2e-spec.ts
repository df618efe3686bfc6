import { administrationOf } from '../support/administration.js';
import { plansOf } from '../support/query-plans.js';
import type { TestUser } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;
const { newAdmin } = administrationOf(() => stack);

/**
 * With so many sessions, PostgreSQL uses indexes as it does in production. Only a fifth of each
 * page is used, so a count that reads the whole table is as expensive as that of 300,000 sessions.
 */
const SESSIONS = 60_000;

beforeAll(async () => {
  stack = await startStack();
  admin = await newAdmin();
  await stack.database.sql(`
    insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
    select md5(n::text), 'Somebody', n || '@example.org', true, now() - n * interval '1 hour', now()
    from generate_series(1, ${SESSIONS / 5}) n`);
  await stack.database.sql(`
    alter table session set (fillfactor = 20);
    insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt", "ipAddress")
    select 's' || n, 'token-' || n, md5((1 + n % ${SESSIONS / 5})::text),
      now() + ((n::bigint * 7919) % 20000 - 10000) * interval '1 minute', now() - n * interval '1 minute',
      now() - ((n::bigint * 104729) % 100000) * interval '1 second',
      case when n % 10 = 0 then '' else '10.' || n % 7 || '.' || n % 250 || '.' || n % 241 end
    from generate_series(1, ${SESSIONS}) n`);
  await stack.database.sql('vacuum analyze');
});
afterAll(() => stack.end());

/** Matches queries for pages, totals, candidates and summaries, but not that of the caller. */
const ABOUT_LISTS = /^select (.* as place\b|count|s\.\S+::text as)/s;

/** Returns the plans of the queries of the lists for one request. */
const listPlans = (path: string, body?: object) => {
  const options = { token: admin.token, ...(body && { method: 'POST', body }) };
  return plansOf(stack, ABOUT_LISTS, () => stack.gatehouse.call(`/api/v1/${path}`, options));
};

describe('query plans of the list of all sessions', () => {
  it.each([
    ['', 'created'],
    ['sort=createdAt', 'created'],
    ['sort=-updatedAt', 'updated'],
    ['sort=expiresAt', 'expires'],
    ['state=expired', 'created'],
    ['createdTo=2026-01-01T00:00:00Z', 'created'],
    ['userId=c4ca4238a0b923820dcc509a6f75849b', 'user'],
    ['ip=10.3.7.1', 'address'],
    ['ip=10.3.7.0/24', 'address'],
    ['ip=::ffff:10.3.7.0/120', 'address'],
  ])('reads a page from an index, without a scan of the table: ?%s', async (query, index) => {
    const plans = await listPlans(`sessions?${query}`);
    expect(plans.length).toBeGreaterThan(0);
    for (const plan of plans) expect(plan).not.toMatch(/Seq Scan on (session|"user")/);
    expect(plans[0]).toContain(`gatehouse_session_${index}_idx`);
  });

  it('reads the matches of a network from the index, without a call for each row', async () => {
    const [page] = await listPlans('sessions?ip=10.3.7.0/24');
    expect(page).not.toMatch(/Filter: .*stored_address/);
  });

  it('finds the sessions to end from the same index as the list', async () => {
    const body = { filter: { ip: '10.3.7.0/24' }, dryRun: true };
    const plans = await listPlans('sessions/revocations', body);
    expect(plans).toHaveLength(3);
    for (const plan of plans) {
      expect(plan).not.toContain('Seq Scan');
      // The own session is found by its id.
      expect(plan).toMatch(/gatehouse_session_address_idx|session_pkey/);
    }
  });
});

describe('query plans of the user list with sessions', () => {
  it('reads the sessions of the users of a page from an index', async () => {
    const plans = await listPlans('users?include=sessions&total=none&sort=createdAt');
    expect(plans).toHaveLength(2);
    for (const plan of plans) expect(plan).not.toContain('Seq Scan');
    // Better-Auth's own index, or that of Gatehouse.
    expect(plans[1]).toMatch(/session_userId_idx|gatehouse_session_user_idx/);
  });

  it('reads the sessions of one user after another to find dormant users', async () => {
    const [page] = await listPlans(
      'users?signedInBefore=2099-01-01T00:00:00Z&total=none&sort=createdAt',
    );
    expect(page).toContain('gatehouse_session_user_idx');
    expect(page).not.toContain('Seq Scan');
  });
});

describe('total of the list of all sessions', () => {
  it('is an estimate if counting few rows would read many pages', async () => {
    const totalOf = async (mode: string) => {
      const path = `/api/v1/sessions?ip=10.3.0.0/16&total=${mode}`;
      return (await stack.gatehouse.call(path, { token: admin.token })).body.pagination;
    };
    expect((await totalOf('estimate')).totalIsEstimate).toBe(true);
    const [row] = await stack.database.sql<{ count: number }>(
      `select count(*)::int as count from session
       where "expiresAt" > now() and "ipAddress" like '10.3.%'`,
    );
    expect(await totalOf('exact')).toMatchObject({ total: row?.count, totalIsEstimate: false });
  });

  it('is exact if an index finds the few rows, also in a large table', async () => {
    const { body } = await stack.gatehouse.call('/api/v1/sessions?ip=10.3.7.0/24&limit=1', {
      token: admin.token,
    });
    const [row] = await stack.database.sql<{ count: number }>(
      `select count(*)::int as count from session
       where "expiresAt" > now() and "ipAddress" like '10.3.7.%'`,
    );
    expect(row?.count).toBeGreaterThan(1);
    expect(body.pagination).toMatchObject({ total: row?.count, totalIsEstimate: false });
  });
});
