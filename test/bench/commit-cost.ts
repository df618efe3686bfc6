import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { startPostgres } from '../../tools/postgres.ts';
import { median } from './median.ts';
import { migrate } from './seed.ts';
import { printRows, type Row } from './row.ts';

const WRITERS = 32;
const USERS = 20_000;
const SESSIONS = 40_000;
/** Many short turns, because the speed of a busy machine changes within seconds. */
const ROUNDS = 9;

interface Write {
  what: string;
  statement: string;
  wanted?: number;
}

/** What 32 writers do. Each statement gets a number that no other one of its turn gets. */
const WRITES: Write[] = [
  {
    what: 'refresh of a session',
    statement: `update session set "expiresAt" = now() + interval '7 days', "updatedAt" = now()
      where id = 's' || $1`,
    wanted: 0.95,
  },
  { what: 'sign-out', statement: `delete from session where id = 's' || $1`, wanted: 0.75 },
  {
    what: 'sign-in',
    statement: `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
      values ('n' || $1, 'n' || $1, 'u' || ($1::int % ${USERS}), now() + interval '7 days', now(), now())`,
    wanted: 0.95,
  },
  {
    what: 'profile update',
    statement: `update "user" set name = 'Name ' || $1, "updatedAt" = now()
      where id = 'u' || ($1::int % ${USERS})`,
  },
  {
    what: 'ban',
    statement: `update "user" set banned = true, "banReason" = $1, "updatedAt" = now()
      where id = 'u' || ($1::int % ${USERS})`,
  },
];

/** Restores what the writes of one turn changed. */
const RESTORE = `
  delete from session where id like 'n%';
  insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt", "ipAddress", "userAgent")
    select 's' || n, 't' || n, 'u' || (n % ${USERS}), now() + interval '6 days', now(), now(), '203.0.113.7', 'bench'
    from generate_series(1, ${SESSIONS}) n on conflict do nothing;
  truncate gatehouse.change`;

/** Other triggers, to compare with. Each is created beside the triggers of Gatehouse. */
const OTHERS: Record<string, (kind: string, table: string, userId: string) => string> = {
  // The design of the release before.
  notify: (kind, table, userId) =>
    statementTriggers('notify', kind, table, userId, {
      few: `perform pg_notify('bench_change', 'user ' || id) from (select distinct id from unnest(touched) as id) as ids`,
      many: `perform pg_notify('bench_change', 'everything')`,
    }),
  statement: (kind, table, userId) =>
    statementTriggers('statement', kind, table, userId, {
      few: 'insert into gatehouse.change (user_id) select distinct id from unnest(touched) as id',
      many: 'insert into gatehouse.change (user_id) values (null)',
    }),
};

function statementTriggers(
  name: string,
  kind: string,
  table: string,
  userId: string,
  { few, many }: { few: string; many: string },
): string {
  return `create function bench_${name}_${kind}() returns trigger
      language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
      declare
        touched text[] := array(select ${userId}::text from old_rows limit 1001);
      begin
        if cardinality(touched) <= 1000 then ${few}; else ${many}; end if;
        return null;
      end $$;
    ${['update', 'delete']
      .map(
        (event) => `create trigger bench_${name}_${event} after ${event} on ${table}
          referencing old table as old_rows for each statement
          execute function bench_${name}_${kind}();`,
      )
      .join('\n')}`;
}

/**
 * Measures the commits of 32 concurrent writers with each kind of triggers, as a ratio to the
 * commits without triggers. The kinds take turns, because the speed of a machine changes.
 */
export async function benchCommitCost(secondsPerTurn: number): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-commit-cost-'));
  // Commits wait for the disk, as in production. No checkpoint happens during the turns.
  const postgres = await startPostgres({
    dataDir: join(folder, 'postgres'),
    settings: { checkpoint_timeout: '1h', max_wal_size: '8GB' },
  });
  try {
    await postgres.createDatabase('bench');
    const url = postgres.url('bench');
    await migrate(url);
    const pool = new Pool({ connectionString: url, max: WRITERS, min: WRITERS });
    // The server can stop before the last connection is closed.
    pool.on('error', () => undefined);
    try {
      await prepare(pool);
      const rows: Row[] = [];
      for (const write of WRITES) rows.push(...(await measure(pool, write, secondsPerTurn)));
      return rows;
    } finally {
      await pool.end();
    }
  } finally {
    await postgres.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

async function prepare(pool: Pool): Promise<void> {
  await pool.query(`insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role)
    select 'u' || n, 'User ' || n, 'u' || n || '@bench.example', true, now(), now(), 'user'
    from generate_series(0, ${USERS - 1}) n`);
  for (const create of Object.values(OTHERS)) {
    await pool.query(create('user', '"user"', 'id'));
    await pool.query(create('session', 'session', '"userId"'));
  }
}

async function measure(pool: Pool, write: Write, seconds: number): Promise<Row[]> {
  const { what, wanted } = write;
  const kinds = ['none', 'gatehouse_record', ...Object.keys(OTHERS).map((name) => `bench_${name}`)];
  const rates = new Map<string, number[]>(kinds.map((kind) => [kind, []]));
  const ratios = new Map<string, number[]>(kinds.map((kind) => [kind, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const kind of kinds) {
      await enableOnly(pool, kind);
      await pool.query(RESTORE);
      rates.get(kind)?.push(await commitsPerSecond(pool, write, seconds));
    }
    const without = rates.get('none')?.at(-1) ?? NaN;
    for (const kind of kinds) ratios.get(kind)?.push((rates.get(kind)?.at(-1) ?? NaN) / without);
  }
  return kinds.slice(1).map((kind) => {
    const ratio = median(ratios.get(kind) ?? []);
    const limit = kind === 'gatehouse_record' ? wanted : undefined;
    const each = ratios
      .get(kind)
      ?.map((one) => one.toFixed(2))
      .join(', ');
    return {
      what: `${what}: commits with ${NAMES[kind]} to without triggers`,
      figure: `${Math.round(median(rates.get(kind) ?? []))} to ${Math.round(median(rates.get('none') ?? []))} a second (ratios ${each})`,
      ratio,
      wanted: limit === undefined ? '-' : `>= ${limit}`,
      met: limit === undefined || ratio >= limit,
    };
  });
}

const NAMES: Record<string, string> = {
  gatehouse_record: 'row triggers and an unlogged table (Gatehouse)',
  bench_notify: 'statement triggers and NOTIFY',
  bench_statement: 'statement triggers and an unlogged table',
};

/** Disables the triggers of all other kinds. Those of foreign keys stay enabled. */
async function enableOnly(pool: Pool, kind: string): Promise<void> {
  await pool.query(`do $$ declare found record; begin
    for found in select tgname, tgrelid::regclass as name from pg_trigger where not tgisinternal
    loop
      execute format('alter table %s %s trigger %I', found.name,
        case when starts_with(found.tgname, '${kind}') then 'enable' else 'disable' end, found.tgname);
    end loop; end $$`);
}

async function commitsPerSecond(
  pool: Pool,
  { what, statement }: Write,
  seconds: number,
): Promise<number> {
  let next = 0;
  let commits = 0;
  const startedAt = performance.now();
  const writer = async () => {
    while (performance.now() - startedAt < seconds * 1000) {
      next += 1;
      // Beyond the last session, the statement would change nothing.
      if (next > SESSIONS) return;
      await pool.query({ name: what, text: statement, values: [String(next)] });
      commits += 1;
    }
  };
  await Promise.all(Array.from({ length: WRITERS }, writer));
  return commits / ((performance.now() - startedAt) / 1000);
}

if (import.meta.main) printRows(await benchCommitCost(0.5));
