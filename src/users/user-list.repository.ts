import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import type { UserRow } from '../access/principal.js';
import { rolesOf } from '../access/user-rules.js';
import { type JoinedRow, toUser, userColumns } from '../better-auth/rows.js';
import { boundedKey, isLongRole, isShortRole } from '../database/bounded-key.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import type { Cursor } from '../validation/cursor.js';
import { allOf, fragment, join, type SqlFragment } from './sql-fragment.js';
import { conditionOf, conditionsOf, type RoleFilter, type UserFilter } from './user-filter.js';
import type { UserSort } from './user-list.dto.js';
import { UserTable } from './user-table.js';

export interface PageRequest {
  sort: UserSort;
  limit: number;
  offset: number;
  cursor: Cursor | null;
}

/** A user and its cursor key. The key has microseconds, which a JavaScript date does not have. */
export interface UserWithCursor {
  user: UserRow;
  cursorKey: string;
}

/**
 * The queries of the user list. The indexes of the migrations `list-indexes` and `bounded-indexes`
 * make them fast on large tables. Change queries and indexes together.
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
    const rows = await this.execute<{ role: string | null }>(
      fragment(
        `with recursive stored as (
          ${next('is not null')} union all
          select ${next('> stored.role')} from stored where stored.role is not null
        )
        (select role from stored where role is not null limit ?)
        union all (select null from ${from} where ${isLongRole(column)}
          order by ${this.users.column('id')} limit 1)`,
        MAX_ROLE_TEXTS + 1,
      ),
    );
    // A row without a text stands for texts that are too long for the index.
    const isComplete = rows.length <= MAX_ROLE_TEXTS && rows.every((row) => row.role !== null);
    if (!isComplete) return { role, texts: null };
    const texts = [...rows.map((row) => row.role), null];
    return { role, texts: texts.filter((text) => rolesOf({ role: text }).includes(role)) };
  }

  /** Finds a page, and one more row if there is a next page. */
  async findPage(filter: UserFilter, page: PageRequest): Promise<UserWithCursor[]> {
    const { users } = this;
    const { property, direction } = parseSort(page.sort);
    const key = users.indexKey(property);
    const orderBy = (expression: string) =>
      `${expression} ${direction}, ${users.column('id')} ${direction}`;
    const parts = this.splitByRole(filter, page.sort).map(({ filter: part, orderPrefix }) => {
      const where = allOf([
        ...conditionsOf(part, users),
        ...(orderPrefix === '' ? [] : [this.roleIndexCondition]),
        ...this.afterCursor(page),
      ]);
      return fragment(
        `(select ${key} as key, ${users.column('id')} from ${users.from} where ${where.sql}
          order by ${orderPrefix}${orderBy(key)} limit ?)`,
        ...where.parameters,
        page.offset + page.limit + 1,
      );
    });
    const all = join(parts, ' union all ');
    const rows = await this.execute<JoinedRow>(
      fragment(
        `select ${userColumns(users.table)}, page.key::text as place
        from (select * from (${all.sql}) u order by ${orderBy('u.key')} limit ? offset ?) page
        join ${users.from} using (${users.name('id')}) order by ${orderBy('page.key')}`,
        ...all.parameters,
        page.limit + 1,
        page.offset,
      ),
    );
    return rows.map((row) => ({ user: toUser(row), cursorKey: String(row['place']) }));
  }

  /** Counts all users of a filter. With a maximum, it stops at the maximum plus one. */
  async count(filter: UserFilter, max: number | null): Promise<number> {
    const where = allOf([
      ...conditionsOf(filter, this.users),
      ...(filter.role?.texts && filter.q === undefined ? [this.roleIndexCondition] : []),
    ]);
    const [row] = await this.execute<{ count: string }>(
      fragment(
        `select count(*) as count from (select 1 from ${this.users.from} where ${where.sql} limit ?) counted`,
        ...where.parameters,
        max === null ? null : max + 1,
      ),
    );
    return Number(row?.count ?? 0);
  }

  /** Returns the row count that PostgreSQL's planner expects from its statistics. */
  async estimate(filter: UserFilter): Promise<number> {
    const where = conditionOf(filter, this.users);
    const [row] = await this.execute<Record<string, [{ Plan: { 'Plan Rows': number } }]>>(
      fragment(
        `explain (format json) select 1 from ${this.users.from} where ${where.sql}`,
        ...where.parameters,
      ),
    );
    return row?.['QUERY PLAN']?.[0].Plan['Plan Rows'] ?? 0;
  }

  /**
   * Splits a filter by role into one filter for each stored text. It does so only for the order by
   * time. For a search or another order there is no such index, and the planner decides.
   */
  private splitByRole(
    filter: UserFilter,
    sort: UserSort,
  ): { filter: UserFilter; orderPrefix: string }[] {
    const { role, q } = filter;
    const texts = role?.texts ?? [];
    const { property, direction } = parseSort(sort);
    const isByTime = q === undefined && property === 'createdAt';
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
  private afterCursor({ sort, cursor }: PageRequest): SqlFragment[] {
    if (!cursor) return [];
    const { users } = this;
    const { property, direction } = parseSort(sort);
    // A cursor can contain a complete text. Only the beginning takes part in the order.
    const value = property === 'createdAt' ? `?::${users.type(property)}` : boundedKey('?::text');
    const sql = `(${users.indexKey(property)}, ${users.column('id')}) ${
      direction === 'asc' ? '>' : '<'
    } (${value}, ?::${users.type('id')})`;
    return [fragment(sql, cursor.value, cursor.id)];
  }

  private execute<Row extends object>({ sql, parameters }: SqlFragment): Promise<Row[]> {
    return this.em.getConnection().execute<Row[]>(sql, [...parameters]);
  }
}

function parseSort(sort: UserSort): {
  property: 'createdAt' | 'email' | 'name';
  direction: 'asc' | 'desc';
} {
  const isDescending = sort.startsWith('-');
  const property = (isDescending ? sort.slice(1) : sort) as 'createdAt' | 'email' | 'name';
  return { property, direction: isDescending ? 'desc' : 'asc' };
}

/** A table with more different texts does not store roles in the way of Better-Auth. */
const MAX_ROLE_TEXTS = 200;
const MAX_UNION_PARTS = 20;
