import { boundedKey } from '../database/bounded-key.js';
import { SessionTable } from '../better-auth/session-table.js';
import type { PhysicalSchema, PhysicalTable } from '../database/physical-schema.js';
import { fragment, type SqlFragment } from '../database/sql-fragment.js';

/** Names the user table and its columns in SQL, with the alias `u`. */
export class UserTable {
  readonly table: PhysicalTable;
  readonly from: string;
  readonly sessions: SessionTable | null;

  constructor(physical: PhysicalSchema) {
    const { user } = physical.tables;
    if (!user) throw new Error('The service does not start without a user table.');
    this.table = user;
    this.from = `"${physical.schema}"."${user.name}" u`;
    this.sessions = SessionTable.in(physical);
  }

  name(property: string): string {
    return `"${this.table.columns[property]?.name}"`;
  }

  column(property: string): string {
    return `u.${this.name(property)}`;
  }

  type(property: string): string {
    return this.table.columns[property]?.type ?? 'text';
  }

  /**
   * The expression that the index on this property contains. For a text it is the beginning, so
   * texts with the same beginning are ordered by id.
   */
  indexKey(property: 'createdAt' | 'email' | 'name'): string {
    const column = this.column(property);
    return property === 'createdAt' ? column : boundedKey(column);
  }

  /** A time in the type of the column. PostgreSQL reads UTC correctly for a type without a zone. */
  time(property: string, time: Date): SqlFragment {
    return fragment(`?::${this.type(property)}`, time.toISOString());
  }
}
