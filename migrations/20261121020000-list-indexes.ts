import { Migration } from '@mikro-orm/migrations';
import { inspectDatabase } from '../src/database/inspect.js';

/**
 * Indexes of the first release, on the whole e-mail address, name and role. PostgreSQL cannot index
 * a text of more than 2,704 bytes, and with such an index it rejects the text. `bounded-indexes`
 * replaces them, so a new database never gets them.
 */
export const UNBOUNDED = [
  'gatehouse_user_email_idx',
  'gatehouse_user_name_idx',
  'gatehouse_user_role_idx',
  'gatehouse_user_email_search_idx',
  'gatehouse_user_name_search_idx',
];

/**
 * Indexes that keep the user list fast with millions of users. `CONCURRENTLY` builds them while the
 * service runs. It does not work in a transaction, so the migration must be repeatable.
 */
export class ListIndexes extends Migration {
  override isTransactional(): boolean {
    return false;
  }

  override async up(): Promise<void> {
    await this.dropUnfinished();
    const trigram = await this.trigramOperators();
    for (const [name, definition] of await this.indexes(trigram)) {
      await this.execute(`create index concurrently if not exists ${name} on ${definition}`);
    }
  }

  override async down(): Promise<void> {
    const names = (await this.indexes('gin_trgm_ops')).map(([name]) => name);
    await this.drop([...names, ...UNBOUNDED]);
  }

  protected async drop(names: string[]): Promise<void> {
    const { schema } = await this.userTable();
    for (const name of names) {
      await this.execute(`drop index concurrently if exists "${schema}".${name}`);
    }
  }

  protected async indexes(_trigram: string | null): Promise<[string, string][]> {
    const { schema, table, columns } = await this.userTable();
    const user = `"${schema}"."${table}"`;
    const column = (property: string) => `"${columns[property]?.name}"`;
    const place = `(${column('createdAt')}, ${column('id')})`;
    return [
      ['gatehouse_user_created_idx', `${user} ${place}`],
      // Includes the end of a ban, so that PostgreSQL counts active bans without the table.
      [
        'gatehouse_user_banned_idx',
        `${user} ${place} include (${column('banExpires')}) where ${column('banned')}`,
      ],
      ['gatehouse_user_unverified_idx', `${user} ${place} where not ${column('emailVerified')}`],
    ];
  }

  protected async userTable() {
    const { schema, tables } = await inspectDatabase((sql) => this.execute(sql), {
      schema: this.config.get('schema'),
      columns: 'auto',
      requireSessions: false,
    });
    if (!tables.user) throw new Error('The migration before this one has made a user table.');
    return { schema, table: tables.user.name, columns: tables.user.columns };
  }

  /** An interrupted build leaves an unusable index, which `if not exists` would keep. */
  private async dropUnfinished(): Promise<void> {
    const rows = await this.execute(`
      select format('%I.%I', n.nspname, c.relname) as name
      from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
      where not i.indisvalid and c.relname like 'gatehouse\\_%'`);
    for (const row of rows) {
      await this.execute(`drop index concurrently if exists ${String(row['name'])}`);
    }
  }

  /** For substring search. Without the extension, the search works but has no index. */
  private async trigramOperators(): Promise<string | null> {
    const available = await this.execute(
      `select 1 from pg_available_extensions where name = 'pg_trgm'`,
    );
    if (available.length === 0) return null;
    await this.execute('create extension if not exists pg_trgm').catch(() => undefined);
    const [row] = await this.execute(`
      select n.nspname as schema from pg_extension e join pg_namespace n on n.oid = e.extnamespace
      where e.extname = 'pg_trgm'`);
    return row ? `"${String(row['schema'])}".gin_trgm_ops` : null;
  }
}
