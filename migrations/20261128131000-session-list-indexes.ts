import { Migration } from '@mikro-orm/migrations';
import { storedAddress } from '../src/better-auth/session-table.js';
import { inspectDatabase } from '../src/database/inspect.js';

/**
 * Indexes that keep the list of all sessions fast with millions of sessions: one for each order,
 * one for the sessions of a user and one for IP addresses. `list-indexes` explains how they are
 * built.
 */
export class SessionListIndexes extends Migration {
  override isTransactional(): boolean {
    return false;
  }

  override async up(): Promise<void> {
    const { schema, table } = await this.sessionTable();
    if (!table) return;
    await this.execute(CREATE_STORED_ADDRESS);
    // The role of Better-Auth calls the function for each new session.
    await this.execute('grant execute on function gatehouse.stored_address(text) to public');
    for (const [name, columns] of indexesOf(table.columns)) {
      // An interrupted build leaves an unusable index, which `if not exists` would keep.
      await this.drop(schema, name);
      await this.execute(
        `create index concurrently ${name} on "${schema}"."${table.name}" ${columns}`,
      );
    }
    // PostgreSQL keeps statistics of an indexed expression, and has none before the next ANALYZE.
    await this.execute(`analyze "${schema}"."${table.name}"`);
  }

  override async down(): Promise<void> {
    const { schema } = await this.sessionTable();
    for (const [name] of indexesOf({})) await this.drop(schema, name);
    await this.execute('drop function if exists gatehouse.stored_address(text)');
  }

  private async drop(schema: string, name: string): Promise<void> {
    await this.execute(`drop index concurrently if exists "${schema}".${name}`);
  }

  private async sessionTable() {
    const { schema, tables } = await inspectDatabase((sql) => this.execute(sql), {
      schema: this.config.get('schema'),
      columns: 'auto',
      requireSessions: false,
    });
    return { schema, table: tables.session };
  }
}

/**
 * Converts a text as `inet` does. An error would make the sign-in fail, so every other text becomes
 * null. An IPv4 address that is written as an IPv6 address (`::ffff:192.0.2.1`) becomes IPv4. No
 * address is longer than 45 characters.
 */
const CREATE_STORED_ADDRESS = `
  create or replace function gatehouse.stored_address(text) returns inet
    language plpgsql immutable strict set search_path = pg_catalog, pg_temp as $$
    declare
      address inet;
    begin
      if $1 = '' or strpos($1, '/') > 0 then
        return null;
      end if;
      address := left($1, 46)::inet;
      if address <<= '::ffff:0:0/96' then
        return inet '0.0.0.0' + (address - '::ffff:0:0');
      end if;
      return address;
    exception when data_exception then
      return null;
    end $$`;

function indexesOf(columns: Record<string, { name: string } | undefined>): [string, string][] {
  const column = (property: string) => `"${columns[property]?.name}"`;
  const [id, created, expires] = ['id', 'createdAt', 'expiresAt'].map(column);
  // With the expiry in the index, PostgreSQL skips expired sessions without reading the table.
  return [
    ['gatehouse_session_created_idx', `(${created}, ${id}) include (${expires})`],
    ['gatehouse_session_updated_idx', `(${column('updatedAt')}, ${id}) include (${expires})`],
    ['gatehouse_session_expires_idx', `(${expires}, ${id})`],
    ['gatehouse_session_user_idx', `(${column('userId')}, ${created}, ${id}) include (${expires})`],
    ['gatehouse_session_address_idx', `(${storedAddress(column('ipAddress'))}, ${created}, ${id})`],
  ];
}
