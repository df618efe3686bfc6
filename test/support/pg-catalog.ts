import type { TestDatabase } from './database.js';

/**
 * All that can be altered about tables, one line each: columns with type, nullability and default,
 * constraints, indexes and triggers. Gatehouse's own schema is excluded by default. So are its
 * indexes and triggers on other tables, whose names begin with `gatehouse_`.
 */
export async function readCatalog(
  { sql }: Pick<TestDatabase, 'sql'>,
  { ours: includeGatehouse = false } = {},
): Promise<string[]> {
  const rows = await sql<{ line: string }>(
    `
    with spaces as (
      select oid, nspname from pg_namespace
      where nspname !~ '^pg_' and nspname <> 'information_schema' and ($1 or nspname <> 'gatehouse')
    )
    select format('schema %I', nspname) as line from spaces
    union all
    select format('column %I.%I.%I %s%s %s', nspname, relname, attname,
      format_type(atttypid, atttypmod), case when attnotnull then ' not null' end,
      coalesce('default ' || pg_get_expr(adbin, adrelid), attidentity::text))
    from pg_attribute a
    join pg_class c on c.oid = attrelid join spaces s on s.oid = relnamespace
    left join pg_attrdef d on adrelid = attrelid and adnum = attnum
    where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'v', 'm')
    union all
    select format('constraint %I.%I %s %s', nspname, conname, conrelid::regclass, pg_get_constraintdef(k.oid))
    from pg_constraint k join spaces s on s.oid = connamespace
    union all
    select pg_get_indexdef(indexrelid)
    from pg_index i join pg_class c on c.oid = indexrelid join spaces s on s.oid = relnamespace
    where $1 or relname !~ '^gatehouse_'
    union all
    select pg_get_triggerdef(t.oid)
    from pg_trigger t join pg_class c on c.oid = tgrelid join spaces s on s.oid = relnamespace
    where not tgisinternal and ($1 or tgname !~ '^gatehouse_')
    order by line`.replaceAll('$1', String(includeGatehouse)),
  );
  return rows.map(({ line }) => line);
}
