import type { PhysicalSchema, PhysicalTable } from '../database/physical-schema.js';
import { canBeId } from '../database/physical-schema.js';
import { fragment, type SqlFragment } from '../database/sql-fragment.js';

type SessionProperty =
  'id' | 'userId' | 'createdAt' | 'updatedAt' | 'expiresAt' | 'ipAddress' | 'impersonatedBy';

/** Names the session table and its columns in SQL, with the alias `s`. */
export class SessionTable {
  readonly from: string;

  private constructor(
    readonly table: PhysicalTable,
    schema: string,
  ) {
    this.from = `"${schema}"."${table.name}" s`;
  }

  /** Null with `SESSION_BINDING=token-only`, if Better-Auth stores sessions elsewhere. */
  static in({ tables, schema }: PhysicalSchema): SessionTable | null {
    return tables.session ? new SessionTable(tables.session, schema) : null;
  }

  name(property: SessionProperty): string {
    return `"${this.table.columns[property]?.name}"`;
  }

  column(property: SessionProperty): string {
    return `s.${this.name(property)}`;
  }

  type(property: SessionProperty): string {
    return this.table.columns[property]?.type ?? 'text';
  }

  /** A time in the type of the column. PostgreSQL reads UTC correctly for a type without a zone. */
  time(property: SessionProperty, time: Date): SqlFragment {
    return fragment(`?::${this.type(property)}`, time.toISOString());
  }

  isActive(now: Date): SqlFragment {
    const { sql, parameters } = this.time('expiresAt', now);
    return fragment(`${this.column('expiresAt')} > ${sql}`, ...parameters);
  }

  /** No row matches a text that is invalid for the column type. */
  hasUser(userId: string): SqlFragment {
    const type = this.type('userId');
    if (!canBeId(type, userId)) return fragment('false');
    return fragment(`${this.column('userId')} = ?::${type}`, userId);
  }

  /** The stored address as `inet`. The migration `session-list-indexes` has an index on it. */
  get address(): string {
    return storedAddress(this.column('ipAddress'));
  }
}

/**
 * A function of the migration `session-list-indexes`. It returns null for a text that is no
 * address, such as the empty text that Better-Auth stores if it trusts no header.
 */
export function storedAddress(column: string): string {
  return `gatehouse.stored_address(${column})`;
}
