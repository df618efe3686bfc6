import { isShortRole, searchedText } from '../src/database/bounded-key.js';
import { ListIndexes } from './20261121020000-list-indexes.js';
import { SEPARATE_SEARCH } from './20261128000000-bounded-indexes.js';

/**
 * Indexes for lists of many millions of users: one for the search in both texts, and one for banned
 * users who have a role. `list-indexes` explains how they are built.
 */
export class LargeListIndexes extends ListIndexes {
  override async up(): Promise<void> {
    await super.up();
    await this.drop(SEPARATE_SEARCH);
    // PostgreSQL keeps statistics of an indexed expression, and has none before the next ANALYZE.
    const { schema, table } = await this.userTable();
    await this.execute(`analyze "${schema}"."${table}"`);
  }

  /** Does not rebuild the old indexes: without them, the old release only searches more slowly. */
  override async down(): Promise<void> {
    await this.drop((await this.indexes('gin_trgm_ops')).map(([name]) => name));
  }

  protected override async indexes(trigram: string | null): Promise<[string, string][]> {
    const { schema, table, columns } = await this.userTable();
    const user = `"${schema}"."${table}"`;
    const column = (property: string) => `"${columns[property]?.name}"`;
    const role = column('role');
    const text = searchedText(column('email'), column('name'));
    return [
      [
        'gatehouse_user_banned_role_idx',
        `${user} (${role}, ${column('createdAt')}, ${column('id')}) include (${column('banExpires')})
          where ${column('banned')} and ${isShortRole(role)}`,
      ],
      ...(trigram === null
        ? []
        : [
            ['gatehouse_user_search_idx', `${user} using gin (${text} ${trigram})`] as [
              string,
              string,
            ],
          ]),
    ];
  }
}
