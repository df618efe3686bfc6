import { Client } from 'pg';

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
 */
export async function seedUsers(url: string, count: number): Promise<void> {
  await withClient(url, async (client) => {
    const few = Math.max(1, 8000 / count);
    // Building the indexes at the end is several times faster than updating them for each row.
    const definitions = await dropIndexes(client);
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
    for (const definition of definitions) await client.query(definition);
    await client.query('vacuum analyze');
  });
}

/** Drops the indexes of Gatehouse and returns their definitions. */
export async function dropIndexes(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string; definition: string }>(`
    select format('%I.%I', schemaname, indexname) as name, indexdef as definition
    from pg_indexes where indexname like 'gatehouse\\_user\\_%'`);
  for (const { name } of rows) await client.query(`drop index ${name}`);
  return rows.map(({ definition }) => definition);
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
