import { hash } from 'node:crypto';
import { Client } from 'pg';
import { runBuilt } from '../support/built-program.ts';

/** Search terms that match one user, one in a thousand, one in twelve, and most users. */
export const TERMS = {
  one: 'lovelace',
  surname: 'ulfrick',
  firstName: 'grace',
  domain: 'example.com',
};

/**
 * Inserts users who signed up over three years, in that order. Names are realistic. Few are admins,
 * some are support, and one in a hundred is banned. Some of the bans have expired. A small
 * number of users has a higher share of each, so that every filter fills a page.
 *
 * Drops the indexes of Gatehouse. The caller builds them again and measures the time.
 */
export async function seedUsers(url: string, count: number): Promise<void> {
  await withClient(url, async (client) => {
    const few = Math.max(1, 8000 / count);
    await dropIndexes(client);
    await client.query(`
      select setseed(0.5);
      with people as materialized (
        select n, first[1 + floor(cardinality(first) * random() ^ 1.5)] as first,
          case n when ${Math.ceil(count / 3)} then 'Lovelace'
            else initcap(front[1 + floor(30 * random())] || back[1 + floor(30 * random())]) end as last,
          random() as domain, random() as verified, random() / ${few} as role, random() / ${few} as ban, random() as hour
        from generate_series(1, ${count}) n,
          (select ${FIRST} as first, ${FRONT} as front, ${BACK} as back) names
      )
      insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role, banned,
        "banReason", "banExpires")
      select md5(n::text), first || ' ' || last,
        lower(first || '.' || last) || n || case when domain < 0.6 then '@example.com'
          when domain < 0.85 then '@example.org' else '@mail.example.net' end,
        verified < 0.8, came, came + interval '1 day' * hour,
        case when role < 0.005 then 'admin' when role < 0.0052 then 'admin,support'
          when role < 0.02 then 'support' when role < 0.035 then 'user,support'
          when role < 0.95 then 'user' end,
        case when ban < 0.01 then true when ban < 0.5 then false end,
        case when ban < 0.01 then 'spam' end,
        case when ban < 0.003 then now() - interval '1 day' * (1 + hour)
          when ban < 0.006 then now() + interval '90 days' end
      from people, lateral (
        select now() - interval '3 years' * (1 - n / ${count}::float8) - interval '1 hour' * hour
      ) as moment (came)
      order by n`);
  });
}

/** Inserts one session for each user of `seedUsers`. One in four has expired. */
export async function seedSessions(url: string, count: number): Promise<void> {
  await withClient(url, async (client) => {
    const definitions = await dropIndexes(client, 'session_userId_idx');
    // Checks no foreign keys. They are correct, because `seedUsers` derives ids in the same way.
    await client.query(`set session_replication_role = replica`);
    await client.query(sessions('md5(n::text)', `n % 4 = 0`, count));
    for (const definition of definitions) await client.query(definition);
  });
}

/** Gives one user many sessions: some hundreds of them are active, and thousands have expired. */
export async function seedSessionsOf(url: string, userId: string): Promise<void> {
  await withClient(url, (client) =>
    client.query(sessions(`'${userId}'`, 'n > 300', 3000).replaceAll(`'session-'`, `'own-'`)),
  );
}

const sessions = (userId: string, isExpired: string, count: number) => `
  insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt", "ipAddress", "userAgent")
  select 'session-' || lpad(n::text, 12, '0'), 'session-' || lpad(n::text, 12, '0'), ${userId},
    now() + case when ${isExpired} then interval '-1 day' else interval '7 days' end,
    now() - interval '1 minute' * n, now(), '203.0.113.7',
    'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0'
  from generate_series(1, ${count}) n`;

/**
 * Inserts audit events of three years. Twenty admins act, each user is changed thirty times, and
 * one event in a thousand ends a ban.
 */
export async function seedAuditEvents(url: string, count: number): Promise<void> {
  await withClient(url, async (client) => {
    const definitions = await dropIndexes(client, 'audit_event_%_idx');
    await client.query(`
      insert into gatehouse.audit_event (id, at, action, actor_id, target_user_id, before, after,
        reason, request_id, ip, user_agent)
      select uuidv7(age), now() + age,
        case when n % 1000 < ${Math.max(1, 30_000 / count)} then 'user.unbanned' when n % 3 = 0 then 'user.banned' else 'user.updated' end,
        'admin-' || n % 20, md5((1 + n % ${Math.ceil(count / 30)})::text), '{"banned": false}',
        '{"banned": true}', 'spam', gen_random_uuid()::text, '203.0.113.7',
        'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0'
      from generate_series(1, ${count}) n,
        lateral (select interval '3 years' * (n / ${count}::float8 - 1)) as event (age)`);
    for (const definition of definitions) await client.query(definition);
  });
}

/** A user about whom there are audit events in a table of any size. */
export const AUDIT_TARGET = hash('md5', '7');

/** Drops indexes and returns their definitions. The default is the user indexes of Gatehouse. */
export async function dropIndexes(
  client: Client,
  pattern = 'gatehouse\\_user\\_%',
): Promise<string[]> {
  const { rows } = await client.query<{ name: string; definition: string }>(
    `select format('%I.%I', schemaname, indexname) as name, indexdef as definition
     from pg_indexes where indexname like $1`,
    [pattern],
  );
  for (const { name } of rows) await client.query(`drop index ${name}`);
  return rows.map(({ definition }) => definition);
}

export async function migrate(databaseUrl: string): Promise<void> {
  const { code, stderr } = await runBuilt('src/cli/migrate.js', { DATABASE_URL: databaseUrl });
  if (code !== 0) throw new Error(`The migrations ended with ${code}: ${stderr}`);
}

export async function withClient<Result>(
  url: string,
  work: (client: Client) => Promise<Result>,
): Promise<Result> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const words = (list: string) => `array['${list.split(' ').join(`','`)}']`;
const FIRST = words(
  'Grace Ada Alan Barbara Claude Donald Edith Frances Gordon Hedy Ivan Jean Karen Linus Margaret Niklaus Olga Peter Radia Sophie Tim Ursula Vint Whitfield Xavier Yukihiro Zoe Anita Bjarne Carol Dennis Evelyn Fernando Guido Helen Ida Joan Katherine Leslie Mary',
);
const FRONT = words(
  'ald bram carl dun els fair grim hart ing jor kel lang mor nor ober pem quin ros stan thorn ulf van wal xan york zeller ash brook crane dale',
);
const BACK = words(
  'berg by croft don ell field gate ham ing kin land man ner ord pool quist rick sen ton ury vale wick worth yard zell bach dorf holm ley stein',
);
