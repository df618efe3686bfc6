import { raw } from '@mikro-orm/core';
import { EntityManager, type SqlEntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import type { Cursor } from '../common/cursor.js';
import type { UserSort } from './user-list.dto.js';
import { User } from './user.entity.js';

export interface UserFilter {
  role?: string | undefined;
  banned?: boolean | undefined;
  emailVerified?: boolean | undefined;
  createdFrom?: Date | undefined;
  createdTo?: Date | undefined;
  /** Contained in the e-mail address or the name, in any case. */
  q?: string | undefined;
}

export interface UserPlace {
  sort: UserSort;
  limit: number;
  offset: number;
  after: Cursor | null;
}

/**
 * The queries behind the list of users. What makes them as quick among millions as among ten are the
 * indexes of the migration `list-indexes`; keep the two together.
 */
@Injectable()
export class UserPagesRepository {
  constructor(private readonly em: EntityManager) {}

  /** One row more than asked for, when there is one: so the caller knows whether it goes on. */
  async find(filter: UserFilter, { sort, limit, offset, after }: UserPlace): Promise<User[]> {
    const { property, direction } = readSort(sort);
    const query = this.filtered(filter)
      .orderBy({ [property]: direction, id: direction })
      .limit(limit + 1)
      .offset(offset);
    if (after) {
      const comparison = direction === 'asc' ? '>' : '<';
      const columns = [property, 'id'].map((name) => this.column(name));
      const types = [property, 'id'].map((name) => this.type(name));
      // Compared as a row, which is what an index on the two columns is ordered by.
      query.andWhere(
        raw(`(${columns.join(', ')}) ${comparison} (?::${types[0]}, ?::${types[1]})`, [
          after.value,
          after.id,
        ]),
      );
    }
    return query.getResultList();
  }

  /** A row's place in a sort, to the microsecond, which a JavaScript date does not hold. */
  async placeOf(user: User, sort: UserSort): Promise<Cursor> {
    const { property } = readSort(sort);
    const [row] = await this.em
      .getConnection()
      .execute<{ value: string }[]>(
        `select ${this.column(property)}::text as value from ${this.table()} u where ${this.column('id')} = ?`,
        [user.id],
      );
    return { sort, value: row?.value ?? '', id: user.id };
  }

  /** Counts no further than `most` + 1. */
  async countUpTo(filter: UserFilter, most: number | null): Promise<number> {
    const query = this.filtered(filter).clone().select(raw('1'));
    if (most !== null) query.limit(most + 1);
    const { sql, params } = query.toQuery();
    const [row] = await this.em
      .getConnection()
      .execute<{ count: string }[]>(`select count(*) as count from (${sql}) as counted`, [
        ...params,
      ]);
    return Number(row?.count ?? 0);
  }

  /** What the planner expects, from the statistics that PostgreSQL keeps. */
  async estimate(filter: UserFilter): Promise<number> {
    const { sql, params } = this.filtered(filter).toQuery();
    const [row] = await this.em
      .getConnection()
      .execute<Record<string, [{ Plan: { 'Plan Rows': number } }]>[]>(
        `explain (format json) ${sql}`,
        [...params],
      );
    return row?.['QUERY PLAN']?.[0].Plan['Plan Rows'] ?? 0;
  }

  private filtered(filter: UserFilter) {
    const { role, banned, emailVerified, createdFrom, createdTo, q } = filter;
    const query = (this.em.fork() as SqlEntityManager).createQueryBuilder(User, 'u').select('*');
    if (role !== undefined)
      query.andWhere(raw(`${rolesExpression(this.column('role'))} @> array[?]`, [role]));
    if (banned !== undefined) query.andWhere(banned ? BANNED(new Date()) : NOT_BANNED(new Date()));
    if (emailVerified !== undefined) query.andWhere({ emailVerified });
    if (createdFrom) query.andWhere({ createdAt: { $gte: createdFrom } });
    if (createdTo) query.andWhere({ createdAt: { $lte: createdTo } });
    if (q !== undefined) {
      const pattern = `%${q.replaceAll(/[\\%_]/g, (character) => `\\${character}`)}%`;
      query.andWhere({ $or: [{ email: { $ilike: pattern } }, { name: { $ilike: pattern } }] });
    }
    return query;
  }

  private column(property: string): string {
    const [name = ''] = this.meta().properties[property as 'id'].fieldNames;
    return `u."${name}"`;
  }

  private type(property: string): string {
    const [type = 'text'] = this.meta().properties[property as 'id'].columnTypes;
    return type;
  }

  private table(): string {
    return `"${this.meta().schema}"."${this.meta().tableName}"`;
  }

  private meta() {
    return this.em.getMetadata().get(User);
  }
}

/** As the index has it, to the letter: PostgreSQL recognises an expression by its form. */
export function rolesExpression(column: string): string {
  return `string_to_array(coalesce(nullif(${column}, ''), 'user'), ',')`;
}

/** `isBanned` of `user-rules.ts`, as a condition. */
const BANNED = (now: Date) => ({
  banned: true,
  $or: [{ banExpires: null }, { banExpires: { $gt: now } }],
});

/** Spelled out, because NOT of a comparison with NULL is no more true than the comparison. */
const NOT_BANNED = (now: Date) => ({
  $or: [{ banned: null }, { banned: false }, { banExpires: { $lte: now } }],
});

function readSort(sort: UserSort): {
  property: 'createdAt' | 'email' | 'name';
  direction: 'asc' | 'desc';
} {
  const descending = sort.startsWith('-');
  const property = (descending ? sort.slice(1) : sort) as 'createdAt' | 'email' | 'name';
  return { property, direction: descending ? 'desc' : 'asc' };
}
