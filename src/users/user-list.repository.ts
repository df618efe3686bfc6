import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import { rolesOf } from '../access/user-rules.js';
import type { UserRow } from '../access/principal.js';
import { type JoinedRow, toUser, userColumns } from '../better-auth/rows.js';
import { boundedKey, isLongRole, isShortRole } from '../database/bounded-key.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import { countRows, estimateRows, type RowEstimate } from '../database/row-count.js';
import { allOf, fragment, join, type SqlFragment } from '../database/sql-fragment.js';
import { type PageRequest, parseSort, type Placed } from '../validation/list-page.js';
import { conditionOf, conditionsOf, type RoleFilter, type UserFilter } from './user-filter.js';
import type { UserSort } from './user-list.dto.js';
import { UserTable } from './user-table.js';

export interface FoundUser extends Placed {
  user: UserRow;
}

/**
 * The queries of the user list. The indexes of the migrations `list-indexes`, `bounded-indexes` and
 * `large-list-indexes` make them fast on large tables. Change queries and indexes together.
 *
 * The filter by role needs an explanation. Better-Auth stores all roles of a user as one text,
 * joined by commas in any order, such as `user,admin`. No index finds one role inside these texts.
 * But a table has few different texts, even with millions of users. So the filter works in two
 * steps:
 *
 * 1. `findRoleTexts` reads every different text from the index on roles, and keeps the texts that
 *    contain the role. Then a condition can compare whole texts, and the index supports it.
 * 2. `splitByRole` makes one query for each text. The index has the users of one text in order of
 *    time, so each query reads one page at most. PostgreSQL merges the results and keeps one page.
 */
@Injectable()
export class UserListRepository {
  private readonly users: UserTable;

  constructor(
    private readonly em: EntityManager,
    @Inject(PHYSICAL_SCHEMA) physical: PhysicalSchema,
  ) {
    this.users = new UserTable(physical);
  }

  /**
   * Finds the stored texts that contain a role. Each step of the recursion skips to the next text.
   */
  async findRoleTexts(role: string): Promise<RoleFilter> {
    const { from } = this.users;
    const column = this.users.column('role');
    const next = (condition: string) =>
      `(select ${column} as role from ${from} where ${column} ${condition}
        and ${isShortRole(column)} order by ${column} limit 1)`;
    const rows = await this.em.getConnection().execute<{ role: string | null }[]>(
      `with recursive stored as (
        ${next('is not null')} union all
        select ${next('> stored.role')} from stored where stored.role is not null
      )
      (select role from stored where role is not null limit ?)
      union all (select null from ${from} where ${isLongRole(column)}
        order by ${this.users.column('id')} limit 1)`,
      [MAX_ROLE_TEXTS + 1],
    );
    // A row without a text stands for texts that are too long for the index.
    const isComplete = rows.length <= MAX_ROLE_TEXTS && rows.every((row) => row.role !== null);
    if (!isComplete) return { role, texts: null };
    const texts = [...rows.map((row) => row.role), null];
    return { role, texts: texts.filter((text) => rolesOf({ role: text }).includes(role)) };
  }

  /** Finds a page, and one more row if there is a next page. */
  async findPage(filter: UserFilter, page: PageRequest<UserSort>): Promise<FoundUser[]> {
    const { users } = this;
    const { property, direction } = parseSort(page.sort);
    const key = users.indexKey(property);
    const orderBy = (expression: string) =>
      `${expression} ${direction}, ${users.column('id')} ${direction}`;
    const parts = this.splitByRole(filter, page.sort).map(({ filter: part, orderPrefix }) => {
      const where = allOf([
        ...conditionsOf(part, users),
        ...(orderPrefix === '' ? [] : [this.roleIndexCondition]),
        ...this.afterCursor(page, key, users.column('id')),
      ]);
      return fragment(
        `(select ${key} as key, ${users.column('id')} from ${users.from} where ${where.sql}
          order by ${orderPrefix}${orderBy(key)} limit ?)`,
        ...where.parameters,
        page.offset + page.limit + 1,
      );
    });
    const all = join(parts, ' union all ');
    const rows = await this.em.getConnection().execute<JoinedRow[]>(
      `select ${userColumns(users.table)}, page.key::text as place
      from (select * from (${all.sql}) u order by ${orderBy('u.key')} limit ? offset ?) page
      join ${users.from} using (${users.name('id')}) order by ${orderBy('page.key')}`,
      [...all.parameters, page.limit + 1, page.offset],
    );
    return rows.map(toFoundUser);
  }

  /**
   * Finds a page and the total, or null if more than `max` users match. A search finds its matches
   * in no order. So PostgreSQL reads all of them to find the newest, and then counts the same rows.
   */
  async findPageOfFew(
    filter: UserFilter,
    page: PageRequest<UserSort>,
    max: number,
  ): Promise<{ rows: FoundUser[]; total: number } | null> {
    const { users } = this;
    const { property, direction } = parseSort(page.sort);
    const where = conditionOf(filter, users);
    const after = allOf(this.afterCursor(page, 'key', users.name('id')));
    const orderBy = (table: string) =>
      `${table}.key ${direction}, ${table}.${users.name('id')} ${direction}`;
    const rows = await this.em.getConnection().execute<JoinedRow[]>(
      `with found as materialized (
        select ${users.indexKey(property)} as key, ${users.column('id')} from ${users.from}
        where ${where.sql} limit ?
      )
      select ${userColumns(users.table)}, page.key::text as place, total.count as total
      from (select count(*)::int as count from found) total left join (
        (select * from found where ${after.sql} order by ${orderBy('found')} limit ? offset ?) page
        join ${users.from} using (${users.name('id')})
      ) on true order by ${orderBy('page')}`,
      [...where.parameters, max + 1, ...after.parameters, page.limit + 1, page.offset],
    );
    const total = Number(rows[0]?.['total']);
    if (total > max) return null;
    // An empty page is one row with the total and without a user.
    return { rows: rows.filter((row) => row['id'] !== null).map(toFoundUser), total };
  }

  /** Counts all users of a filter. With a maximum, it stops at the maximum plus one. */
  async count(filter: UserFilter, max: number | null): Promise<number> {
    return countRows(this.em, this.users.from, this.unsortedCondition(filter), max);
  }

  /** Returns what PostgreSQL's planner expects, without a count. */
  async estimate(filter: UserFilter): Promise<RowEstimate> {
    const { from } = this.users;
    const estimate = await estimateRows(this.em, from, conditionOf(filter, this.users));
    if (!filter.role) return estimate;
    // The planner has no statistics of the condition of the index on roles. So only the cost of the
    // count comes from the query that has it.
    const { isQuick } = await estimateRows(this.em, from, this.unsortedCondition(filter));
    return { rows: estimate.rows, isQuick };
  }

  /** The condition of a query that needs no order. */
  private unsortedCondition(filter: UserFilter): SqlFragment {
    return allOf([
      ...conditionsOf(filter, this.users),
      ...(filter.role?.texts && filter.q === undefined ? [this.roleIndexCondition] : []),
    ]);
  }

  /**
   * Splits a filter by role into one filter for each stored text. It does so only for the order by
   * time. For another order there is no such index, and the planner decides.
   */
  private splitByRole(
    filter: UserFilter,
    sort: UserSort,
  ): { filter: UserFilter; orderPrefix: string }[] {
    const { role } = filter;
    const texts = role?.texts ?? [];
    const { property, direction } = parseSort(sort);
    const isByTime = property === 'createdAt';
    if (!role || !isByTime || texts.length === 0 || texts.length > MAX_UNION_PARTS) {
      return [{ filter, orderPrefix: '' }];
    }
    return texts.map((text) => ({
      filter: { ...filter, role: { ...role, texts: [text] } },
      // All rows of a part have the same text. PostgreSQL sees this for `=`, but not for `is null`:
      // without the prefix it would sort these rows instead of reading them in index order.
      orderPrefix: `${this.users.column('role')} ${direction}, `,
    }));
  }

  /** True for all texts of a complete `RoleFilter`, and lets PostgreSQL use the index on roles. */
  private get roleIndexCondition(): SqlFragment {
    return fragment(isShortRole(this.users.column('role')));
  }

  /** Compares both columns as one row value, because the index has this order. */
  private afterCursor(
    { sort, cursor }: PageRequest<UserSort>,
    key: string,
    id: string,
  ): SqlFragment[] {
    if (!cursor) return [];
    const { users } = this;
    const { property, direction } = parseSort(sort);
    // A cursor can contain a complete text. Only the beginning takes part in the order.
    const value = property === 'createdAt' ? `?::${users.type(property)}` : boundedKey('?::text');
    const operator = direction === 'asc' ? '>' : '<';
    const sql = `(${key}, ${id}) ${operator} (${value}, ?::${users.type('id')})`;
    return [fragment(sql, cursor.value, cursor.id)];
  }
}

/** A table with more different texts does not store roles in the way of Better-Auth. */
const MAX_ROLE_TEXTS = 200;
const MAX_UNION_PARTS = 20;

/** Reads a row whose column `place` is the key of the order. */
function toFoundUser(row: JoinedRow): FoundUser {
  const user = toUser(row);
  return { id: user.id, user, cursorKey: String(row['place']) };
}
