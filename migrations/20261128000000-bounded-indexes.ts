import { boundedKey, isLongRole, isShortRole } from '../src/database/bounded-key.js';
import { ListIndexes, UNBOUNDED } from './20261121020000-list-indexes.js';

/** `large-list-indexes` replaces them by one index, so a new database never gets them. */
export const SEPARATE_SEARCH = [
  'gatehouse_user_email_prefix_search_idx',
  'gatehouse_user_name_prefix_search_idx',
];

/**
 * Indexes for sorting by email address and name, and for filtering by role. They hold the beginning
 * of each text, so a text of any length can be stored. `list-indexes` explains how they are built.
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
    const names = (await this.indexes()).map(([name]) => name);
    await this.drop([...names, ...SEPARATE_SEARCH]);
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
        'gatehouse_user_short_role_idx',
        `${user} (${column('role')}, ${column('createdAt')}, ${column('id')})
          where ${isShortRole(column('role'))}`,
      ],
      // Normally empty: it shows at once that every role is in the index above.
      [
        'gatehouse_user_long_role_idx',
        `${user} (${column('id')}) where ${isLongRole(column('role'))}`,
      ],
    ];
  }
}
