import { Client } from 'pg';
import { type RunningApp, startApp } from '../support/test-app.js';
import { type TestUser, signUp } from '../support/users.js';
import { retryOn503, until } from '../support/app-process.js';
import { takeSnapshot } from '../support/user-snapshot.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
beforeAll(async () => (stack = await startStack({}, { ROLES: 'user,support,admin' })));
afterAll(() => stack.end());

const ask = (by: TestUser, method: string, path: string, body?: unknown, headers = {}) =>
  stack.gatehouse.call(`/api/v1/users/${path}`, {
    method,
    token: by.token,
    headers,
    ...(body === undefined ? {} : { body }),
  });

const eventsOf = (id: string) =>
  stack.database.sql<{ action: string; before: object; after: object }>(
    'select action, before, after from gatehouse.audit_event where target_user_id = $1 order by id',
    [id],
  );

async function newAdmin(): Promise<TestUser> {
  const person = await signUp(stack.authWithSid, 'Admin');
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [person.id]);
  return person;
}

it('an effective admin always remains: 50 rounds of 20 demotions and bans among five admins', async () => {
  const admins: TestUser[] = [];
  for (let i = 0; i < 5; i += 1) admins.push(await newAdmin());
  const restore = await takeSnapshot(stack.database);
  let made = 0;
  for (let round = 0; round < 50; round += 1) {
    await restore();
    const began = performance.now();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => {
        const by = admins[i % 5] as TestUser;
        // Never oneself: in each round everybody is after everybody else.
        const target = admins[(i + 1 + ((Math.floor(i / 5) + round) % 4)) % 5] as TestUser;
        return (i + round) % 2 === 0
          ? ask(by, 'PUT', `${target.id}/role`, { role: 'user' })
          : ask(by, 'POST', `${target.id}/ban`, {});
      }),
    );
    const usual = [200, 401, 403, 409, ...(isSlow(began) ? [503] : [])];
    expect(answers.filter(({ status }) => !usual.includes(status))).toEqual([]);
    made += answers.filter(({ status }) => status === 200).length;
    const left = await stack.database.sql(
      `select id from "user" where role = 'admin' and banned is not true`,
    );
    expect(left.length).toBeGreaterThan(0);
  }
  expect(made).toBeGreaterThan(50);
  await restore();
}, 120_000);

describe('If-Match', () => {
  it('lets exactly one of 200 changes at once win, five times over, and loses none', async () => {
    const ada = await signUp(stack.authWithSid);
    const won: string[] = [];
    for (let wave = 0; wave < 5; wave += 1) {
      const etag = (await ask(ada, 'GET', ada.id)).headers.get('etag') ?? '';
      const answers = await Promise.all(
        Array.from({ length: 200 }, (_, i) =>
          retryOn503(() =>
            ask(ada, 'PATCH', ada.id, { name: `Name ${wave}.${i}` }, { 'if-match': etag }),
          ),
        ),
      );
      const winners = answers.filter(({ status }) => status === 200);
      expect(answers.filter(({ status }) => status === 412)).toHaveLength(199);
      expect(winners).toHaveLength(1);
      won.push(winners[0]?.body.name);
      expect((await ask(ada, 'GET', ada.id)).body.name).toBe(won.at(-1));
    }
    expect((await eventsOf(ada.id)).map(({ after }) => after)).toEqual(
      won.map((name) => ({ name })),
    );
  }, 120_000);

  it('loses none of 200 changes of four clients that look again whenever they come too late', async () => {
    const ada = await signUp(stack.authWithSid);
    await ask(ada, 'PATCH', ada.id, { name: '0' });
    const addOne = async (): Promise<void> => {
      for (;;) {
        const { headers, body } = await ask(ada, 'GET', ada.id);
        const ifMatch = { 'if-match': headers.get('etag') ?? '' };
        const name = String(Number(body.name) + 1);
        const { status } = await ask(ada, 'PATCH', ada.id, { name }, ifMatch);
        if (status === 200) return;
        expect(status).toBe(412);
      }
    };
    await Promise.all(
      Array.from({ length: 4 }, async () => {
        for (let i = 0; i < 50; i += 1) await addOne();
      }),
    );
    expect((await ask(ada, 'GET', ada.id)).body.name).toBe('200');
    const [, ...events] = await eventsOf(ada.id);
    expect(events.map(({ before, after }) => [before, after])).toEqual(
      Array.from({ length: 200 }, (_, i) => [{ name: `${i}` }, { name: `${i + 1}` }]),
    );
  }, 120_000);
});

describe('deadlocks', () => {
  const WANTED = 200;
  const IN_A_WAVE = 5;
  let gatehouse: RunningApp;
  let admin: TestUser;
  const outside: Client[] = [];

  beforeAll(async () => {
    admin = await newAdmin();
    // Gatehouse's side looks for a deadlock at once, and the other side never: so it is Gatehouse's
    // transaction that PostgreSQL ends, each time.
    const name = new URL(stack.database.url).pathname.slice(1);
    await stack.database.sql(`alter database ${name} set deadlock_timeout = '10ms'`);
    gatehouse = await startApp({
      DATABASE_URL: stack.database.url,
      BETTER_AUTH_URL: stack.auth.origin,
    });
    for (let i = 0; i <= IN_A_WAVE; i += 1) {
      const client = new Client({ connectionString: stack.database.url });
      await client.connect();
      await client.query(`set deadlock_timeout = '1min'`);
      outside.push(client);
    }
  });

  afterAll(async () => {
    for (const client of outside) await client.end();
    await gatehouse.close();
  });

  /**
   * The request takes what is `first` (the user's row, or its first session), and waits for the second
   * session; somebody else has the third, and asks for what is `first`. Let go at the second, the
   * request asks for the third: now each waits for the other.
   */
  async function crossed(holder: Client, id: string, kind: 'ban' | 'sign out') {
    const first =
      kind === 'ban'
        ? `select 1 from "user" where id = '${id}' for update`
        : `select 1 from session where id = '${id}-1' for update`;
    await holder.query('begin');
    await holder.query(`select 1 from session where id = '${id}-3' for update`);
    const answer = gatehouse.call(`/api/v1/users/${id}/${kind === 'ban' ? 'ban' : 'sessions'}`, {
      method: kind === 'ban' ? 'POST' : 'DELETE',
      token: admin.token,
      ...(kind === 'ban' ? { body: { reason: 'spam' } } : {}),
    });
    return { answer, first };
  }

  /** People with three sessions each. */
  async function newUsers(wave: number): Promise<string[]> {
    const ids = Array.from({ length: IN_A_WAVE }, (_, i) => `u${wave}x${i}`);
    await stack.database.sql(
      `insert into "user" (id, name, email, "emailVerified", "updatedAt")
       select id, 'Somebody', id || '@example.com', false, now() from unnest($1::text[]) id`,
      [ids],
    );
    await stack.database.sql(
      `insert into session (id, token, "userId", "expiresAt", "updatedAt")
       select id || '-' || n, 'token-of-' || id || '-' || n, id, now() + interval '1 hour', now()
       from unnest($1::text[]) id, generate_series(1, 3) n order by id, n`,
      [ids],
    );
    return ids;
  }

  /** Resolves with the statuses of the answers. */
  async function crossAll(ids: string[]): Promise<number[]> {
    const [gate, ...holders] = outside as [Client, ...Client[]];
    await gate.query('begin');
    await gate.query('select 1 from session where id = any($1) for update', [
      ids.map((id) => `${id}-2`),
    ]);
    // One ban at a time: a second one would wait for the first before it takes anything.
    const storm = await Promise.all(
      holders.map((holder, i) => crossed(holder, ids[i] ?? '', i === 0 ? 'ban' : 'sign out')),
    );
    // A machine that takes too long for this has the requests answered before they are crossed.
    let answered = 0;
    for (const { answer } of storm) void answer.then(() => (answered += 1));
    const crossing = (many: number) =>
      until(async () => answered > 0 || (await waiting()) === many, true);
    await crossing(IN_A_WAVE);
    const taken = holders.map((holder, i) => holder.query(storm[i]?.first ?? ''));
    await crossing(2 * IN_A_WAVE);
    await gate.query('commit');
    await Promise.all(taken.map((query, i) => query.then(() => holders[i]?.query('commit'))));
    return Promise.all(storm.map(async ({ answer }) => (await answer).status));
  }

  it('never reach a client: all of 200 changes that ran into one are made', async () => {
    const before = await deadlocks();
    const made: string[] = [];
    for (let wave = 0; made.length < WANTED && wave < WANTED; wave += 1) {
      const ids = await newUsers(wave);
      const began = performance.now();
      const statuses = await crossAll(ids);
      if (statuses.includes(503) && isSlow(began)) continue;
      expect(statuses).toEqual(ids.map(() => 200));
      made.push(...ids);
    }
    expect(made).toHaveLength(WANTED);
    await until(async () => (await deadlocks()) - before >= WANTED, true);
    const [counted] = await stack.database.sql(
      `select (select count(*)::int from "user" where id = any($1) and banned) bans,
        (select count(*)::int from session where "userId" = any($1)) sessions,
        (select count(*)::int from gatehouse.audit_event where target_user_id = any($1)) events,
        (select count(distinct target_user_id)::int
         from gatehouse.audit_event where target_user_id = any($1)) targets`,
      [made],
    );
    expect(counted).toEqual({
      bans: WANTED / IN_A_WAVE,
      sessions: 0,
      events: WANTED,
      targets: WANTED,
    });
  }, 120_000);
});

/** On a machine that is busy with something else a change may take too long, and is rightly given up. */
function isSlow(began: number): boolean {
  return performance.now() - began > 1000;
}

/** How many PostgreSQL has seen in this database. */
async function deadlocks(): Promise<number> {
  const [row] = await stack.database.sql<{ deadlocks: string }>(
    'select deadlocks from pg_stat_database where datname = current_database()',
  );
  return Number(row?.deadlocks);
}

/** How many wait for a lock in this database. */
async function waiting(): Promise<number> {
  const [row] = await stack.database.sql<{ count: string }>(
    `select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'`,
  );
  return Number(row?.count);
}
