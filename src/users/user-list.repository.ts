import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import { type JoinedRow, toUser, userColumns } from '../better-auth/rows.js';
import type { UserRow } from '../access/principal.js';
import { rolesOf } from '../access/user-rules.js';
import type { Cursor } from '../validation/cursor.js';
import { boundedKey, MAX_KEY_CHARACTERS } from '../database/bounded-key.js';
import { likePattern } from '../database/like-pattern.js';
import {
  PHYSICAL_SCHEMA,
  type PhysicalSchema,
  type PhysicalTable,
} from '../database/physical-schema.js';
import type { UserSort } from './user-list.dto.js';

export interface UserFilter {
  role?: StoredRole | undefined;
  banned?: boolean | undefined;
  emailVerified?: boolean | undefined;
  createdFrom?: Date | undefined;
  createdTo?: Date | undefined;
  /** Contained in the e-mail address or the name, in any case. */
  q?: string | undefined;
}

/** A role, and all that users have stored who have it among theirs; null where that is too much to say. */
export interface StoredRole {
  name: string;
  stored: (string | null)[] | null;
}

export interface PageRequest {
  sort: UserSort;
  limit: number;
  offset: number;
  after: Cursor | null;
}

/** A user, and the place in the sort to the microsecond, which a JavaScript date does not hold. */
export interface UserWithCursor {
  user: UserRow;
  cursorKey: string;
}

/**
 * The queries behind the list of users. What makes them as quick among millions as among ten are the
 * indexes of the migrations `list-indexes` and `bounded-indexes`; keep them together.
 */
@Injectable()
export class UserListRepository {
  constructor(
    private readonly em: EntityManager,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  /**
   * Roles are stored joined by commas, in any order, so no index can look for one of them. But there are
   * few such texts, however many users, and the index on them leads from each to the next.
   */
  async storedRoleValues(role: string): Promise<StoredRole> {
    const key = this.key('role');
    const next = (than: string) =>
      `(select ${key} as role from ${this.from} where ${key} ${than} order by ${key} limit 1)`;
    const texts = await this.execute<{ role: string }>({
      sql: `with recursive stored as (
          ${next('is not null')} union all
          select ${next('> stored.role')} from stored where stored.role is not null
        )
        select role from stored where role is not null limit ?`,
      parameters: [MAX_ROLE_VALUES + 1],
    });
    const all = [...texts.map((row) => row.role), null];
    const stored = all.filter((text) => rolesOf({ role: text }).includes(role));
    // The index has the beginning of a text. What the end of a long one says, only its row knows.
    const isCut = texts.some((row) => row.role.length >= MAX_KEY_CHARACTERS);
    return { name: role, stored: isCut || texts.length > MAX_ROLE_VALUES ? null : stored };
  }

  /** One row more than asked for, when there is one: so the caller knows whether it goes on. */
  async find(filter: UserFilter, place: PageRequest): Promise<UserWithCursor[]> {
    const order = this.orderOf(place.sort);
    const least = place.offset + place.limit + 1;
    const parts = this.splitByRole(filter, place.sort).map(({ filter: part, first = '' }) => {
      const where = and([...this.conditions(part), ...this.afterCursor(place)]);
      return {
        sql: `(select ${order.key} as key, ${this.column('id')} from ${this.from} where ${where.sql}
          order by ${first}${order.of(order.key)} limit ?)`,
        parameters: [...where.parameters, least],
      };
    });
    const all = joined(parts, ' union all ');
    const rows = await this.execute<JoinedRow>({
      sql: `select ${userColumns(this.user)}, page.key::text as place
        from (select * from (${all.sql}) u order by ${order.of('u.key')} limit ? offset ?) page
        join ${this.from} using (${this.name('id')}) order by ${order.of('page.key')}`,
      parameters: [...all.parameters, place.limit + 1, place.offset],
    });
    return rows.map((row) => ({ user: toUser(row), cursorKey: String(row['place']) }));
  }

  /** Counts no further than `most` + 1. */
  async countUpTo(filter: UserFilter, most: number | null): Promise<number> {
    const where = and(this.conditions(filter));
    const [row] = await this.execute<{ count: string }>({
      sql: `select count(*) as count from (select 1 from ${this.from} where ${where.sql} limit ?) counted`,
      parameters: [...where.parameters, most === null ? null : most + 1],
    });
    return Number(row?.count ?? 0);
  }

  /** What the planner expects, from the statistics that PostgreSQL keeps. */
  async estimate(filter: UserFilter): Promise<number> {
    const where = and(this.conditions(filter));
    const [row] = await this.execute<Record<string, [{ Plan: { 'Plan Rows': number } }]>>({
      sql: `explain (format json) select 1 from ${this.from} where ${where.sql}`,
      parameters: where.parameters,
    });
    return row?.['QUERY PLAN']?.[0].Plan['Plan Rows'] ?? 0;
  }

  /**
   * Filters that together are the filter, each of which an index has in the order that is wanted. The one
   * on roles has each text by time; of a search, or by name, there is no such index and the planner
   * knows best.
   */
  private splitByRole(
    filter: UserFilter,
    sort: UserSort,
  ): { filter: UserFilter; first?: string }[] {
    const { role, q } = filter;
    const texts = role?.stored ?? [];
    const { property, direction } = readSort(sort);
    const isByTime = q === undefined && property === 'createdAt';
    if (!role || !isByTime || texts.length === 0 || texts.length > MAX_UNION_PARTS)
      return [{ filter }];
    return texts.map((text) => ({
      filter: { ...filter, role: { ...role, stored: [text] } },
      // The same in all rows, and yet PostgreSQL must hear it where it is NULL, or it would not see the order.
      first: `${this.key('role')} ${direction}, `,
    }));
  }

  private conditions(filter: UserFilter): Sql[] {
    const { role, banned, emailVerified, createdFrom, createdTo, q } = filter;
    const column = (property: string) => this.column(property);
    const conditions: Sql[] = [];
    if (role !== undefined) conditions.push(this.hasRole(role));
    if (banned !== undefined) {
      const now = this.time('banExpires', new Date());
      const sql = banned
        ? `${column('banned')} and (${column('banExpires')} is null or ${column('banExpires')} > ${now.sql})`
        : // Spelled out, because NOT of a comparison with NULL is no more true than the comparison.
          `(${column('banned')} is null or not ${column('banned')} or ${column('banExpires')} <= ${now.sql})`;
      conditions.push({ sql, parameters: now.parameters });
    }
    if (emailVerified !== undefined) {
      conditions.push(plain(`${emailVerified ? '' : 'not '}${column('emailVerified')}`));
    }
    if (createdFrom) {
      const from = this.time('createdAt', createdFrom);
      conditions.push(joined([plain(column('createdAt')), from], ' >= '));
    }
    if (createdTo) {
      const to = this.time('createdAt', createdTo);
      conditions.push(joined([plain(column('createdAt')), to], ' <= '));
    }
    if (q !== undefined) {
      const pattern = likePattern(q);
      conditions.push({
        sql: `(${column('email')} ilike ? or ${column('name')} ilike ?)`,
        parameters: [pattern, pattern],
      });
    }
    return conditions;
  }

  /** `rolesOf` of `user-rules.ts`, as a condition. */
  private hasRole({ name, stored }: StoredRole): Sql {
    if (stored === null) {
      return {
        sql: `string_to_array(coalesce(nullif(${this.column('role')}, ''), 'user'), ',') @> array[?]`,
        parameters: [name],
      };
    }
    const key = this.key('role');
    const [text] = stored;
    if (stored.length === 1) {
      return text === null ? plain(`${key} is null`) : { sql: `${key} = ?`, parameters: [text] };
    }
    const texts = stored.filter((each) => each !== null);
    const orNull = stored.includes(null) ? ` or ${key} is null` : '';
    return {
      sql: `(${key} = any(array[${texts.map(() => '?').join(', ')}]::text[])${orNull})`,
      parameters: texts,
    };
  }

  /** Compared as a row, which is what an index on the two columns is ordered by. */
  private afterCursor({ sort, after }: PageRequest): Sql[] {
    if (!after) return [];
    const { property, direction } = readSort(sort);
    const columns = `(${this.key(property)}, ${this.column('id')})`;
    // Of a cursor from before the sort by the beginning, too, the beginning counts.
    const value = property === 'createdAt' ? `?::${this.type(property)}` : boundedKey('?::text');
    const values = `(${value}, ?::${this.type('id')})`;
    return [
      {
        sql: `${columns} ${direction === 'asc' ? '>' : '<'} ${values}`,
        parameters: [after.value, after.id],
      },
    ];
  }

  /** A point in time as the column has it: PostgreSQL reads the UTC of one without a zone from it, too. */
  private time(property: string, at: Date): Sql {
    return { sql: `?::${this.type(property)}`, parameters: [at.toISOString()] };
  }

  private execute<Row extends object>({ sql, parameters }: Sql): Promise<Row[]> {
    return this.em.getConnection().execute<Row[]>(sql, [...parameters]);
  }

  private orderOf(sort: UserSort): { key: string; of: (key: string) => string } {
    const { property, direction } = readSort(sort);
    return {
      key: this.key(property),
      of: (key) => `${key} ${direction}, ${this.column('id')} ${direction}`,
    };
  }

  /** What the index on this column holds: of a text, its beginning. Texts that begin alike go by id. */
  private key(property: 'createdAt' | 'email' | 'name' | 'role'): string {
    const column = this.column(property);
    return property === 'createdAt' ? column : boundedKey(column);
  }

  private column(property: string): string {
    return `u.${this.name(property)}`;
  }

  private name(property: string): string {
    return `"${this.user.columns[property]?.name}"`;
  }

  private type(property: string): string {
    return this.user.columns[property]?.type ?? 'text';
  }

  private get from(): string {
    return `"${this.physical.schema}"."${this.user.name}" u`;
  }

  private get user(): PhysicalTable {
    const { user } = this.physical.tables;
    if (!user) throw new Error('The service does not start without a user table.');
    return user;
  }
}

/** A piece of SQL, and what stands for its question marks. */
interface Sql {
  sql: string;
  parameters: readonly unknown[];
}

function plain(sql: string): Sql {
  return { sql, parameters: [] };
}

function joined(parts: Sql[], separator: string): Sql {
  return {
    sql: parts.map(({ sql }) => sql).join(separator),
    parameters: parts.flatMap(({ parameters }) => parameters),
  };
}

function and(conditions: Sql[]): Sql {
  return conditions.length === 0 ? plain('true') : joined(conditions, ' and ');
}

function readSort(sort: UserSort): {
  property: 'createdAt' | 'email' | 'name';
  direction: 'asc' | 'desc';
} {
  const descending = sort.startsWith('-');
  const property = (descending ? sort.slice(1) : sort) as 'createdAt' | 'email' | 'name';
  return { property, direction: descending ? 'desc' : 'asc' };
}

/** A database with more texts in its role column than this does not keep roles there as Better-Auth does. */
const MAX_ROLE_VALUES = 200;
const MAX_UNION_PARTS = 20;
