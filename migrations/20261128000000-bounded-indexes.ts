import { boundedKey } from '../src/database/bounded-key.js';
import { ListIndexes, UNBOUNDED } from './20261121020000-list-indexes.js';

/**
 * Indexes for sorting by e-mail address and name, and for filtering by role. They hold the
 * beginning of each text, so a text of any length can be stored. `list-indexes` explains how they
 * are built.
 */
export class BoundedIndexes extends ListIndexes {
  override async up(): Promise<void> {
    await super.up();
    await this.drop(UNBOUNDED);
    // PostgreSQL keeps statistics of an indexed expression, and has none before the next ANALYZE.
    const { schema, table } = await this.userTable();
    await this.execute(`analyze "${schema}"."${table}"`);
  }

  /** Does not rebuild the old indexes: that could fail, and the old release does not need them. */
  override async down(): Promise<void> {
    await this.drop((await this.indexes()).map(([name]) => name));
  }

  protected override async indexes(): Promise<[string, string][]> {
    const { schema, table, columns } = await this.userTable();
    const user = `"${schema}"."${table}"`;
    const column = (property: string) => `"${columns[property]?.name}"`;
    const key = (property: string) => boundedKey(column(property));
    return [
      ['gatehouse_user_email_prefix_idx', `${user} (${key('email')}, ${column('id')})`],
      ['gatehouse_user_name_prefix_idx', `${user} (${key('name')}, ${column('id')})`],
      [
        'gatehouse_user_role_prefix_idx',
        `${user} (${key('role')}, ${column('createdAt')}, ${column('id')})`,
      ],
    ];
  }
}
