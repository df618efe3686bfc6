import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import type { SessionRow } from '../access/principal.js';
import { column, type JoinedRow, sessionColumns, toSession } from '../better-auth/rows.js';
import { SessionTable } from '../better-auth/session-table.js';
import { leftOf, MAX_CHARACTERS } from '../database/bounded-text.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import { countRows, estimateRows, type RowEstimate } from '../database/row-count.js';
import { allOf, fragment, join, type SqlFragment } from '../database/sql-fragment.js';
import { type PageRequest, parseSort, type Placed } from '../validation/list-page.js';
import type { SessionSort } from './session-list.dto.js';

/** A validated filter. Undefined conditions match every session. */
export interface SessionConditions {
  userId: string | undefined;
  /** A text that PostgreSQL accepts as `inet`. */
  ip: string | undefined;
  createdFrom: Date | undefined;
  createdTo: Date | undefined;
  impersonated: boolean | undefined;
  state: 'active' | 'expired';
  /** Sessions that expire later are active. */
  now: Date;
}

export interface FoundSession extends Placed {
  session: SessionRow;
  user: { id: string; email: string; name: string };
}

/** A session that a revocation can end. */
export interface Candidate {
  id: string;
  userId: string;
  /** The stored roles of the user. */
  role: string | null;
}

/** The session of the caller, or all sessions of the caller if the token has no session id. */
export type OwnSessions = { id: string } | { userId: string };

/**
 * The queries of the list of all sessions. The indexes of the migration `session-list-indexes` make
 * them fast on large tables. Change queries and indexes together.
 */
@Injectable()
export class SessionListRepository {
  private readonly sessions: SessionTable | null;

  constructor(
    private readonly em: EntityManager,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {
    this.sessions = SessionTable.in(physical);
  }

  /** Finds a page, and one more row if there is a next page. */
  async findPage(
    filter: SessionConditions,
    { sort, limit, offset, cursor }: PageRequest<SessionSort>,
  ): Promise<FoundSession[]> {
    const { sessions } = this;
    const { user } = this.physical.tables;
    if (!sessions || !user) return [];
    const { property, direction } = parseSort(sort);
    const [key, id] = [sessions.column(property), sessions.column('id')];
    const orderBy = `${key} ${direction}, ${id} ${direction}`;
    // Compares both columns as one row value, because the index has this order.
    const after = `(${key}, ${id}) ${direction === 'asc' ? '>' : '<'} (?::${sessions.type(property)}, ?::${sessions.type('id')})`;
    const where = allOf([
      ...conditionsOf(filter, sessions),
      ...(cursor ? [fragment(after, cursor.value, cursor.id)] : []),
    ]);
    const texts = (['email', 'name'] as const).map(
      (name) => `${leftOf(`u.${column(user, name)}`, MAX_CHARACTERS[name])} as "${name}"`,
    );
    // The page is found in an index. Only its rows are read from the tables.
    const rows = await this.em.getConnection().execute<JoinedRow[]>(
      `select ${sessionColumns(sessions.table)}, ${texts.join(', ')}, ${key}::text as place
      from (select ${id} as page_id from ${sessions.from} where ${where.sql}
        order by ${orderBy} limit ? offset ?) page
      join ${sessions.from} on ${id} = page.page_id
      left join "${this.physical.schema}"."${user.name}" u
        on u.${column(user, 'id')} = ${sessions.column('userId')}
      order by ${orderBy}`,
      [...where.parameters, limit + 1, offset],
    );
    return rows.map((row) => {
      const session = toSession(row);
      // A foreign key of Better-Auth deletes the sessions of a deleted user.
      const [email, name] = [String(row['email'] ?? ''), String(row['name'] ?? '')];
      return {
        id: session.id,
        session,
        user: { id: session.userId, email, name },
        cursorKey: String(row['place']),
      };
    });
  }

  /** Counts all sessions of a filter. With a maximum, it stops at the maximum plus one. */
  async count(filter: SessionConditions, max: number | null): Promise<number> {
    const { sessions } = this;
    if (!sessions) return 0;
    return countRows(this.em, sessions.from, allOf(conditionsOf(filter, sessions)), max);
  }

  /** Returns what PostgreSQL's planner expects, without a count. */
  async estimate(filter: SessionConditions): Promise<RowEstimate> {
    const { sessions } = this;
    if (!sessions) return { rows: 0, isQuick: true };
    return estimateRows(this.em, sessions.from, allOf(conditionsOf(filter, sessions)));
  }

  /** The newest sessions of a filter, at most `max`: only own sessions, or only the others. */
  findCandidates(
    filter: SessionConditions,
    own: OwnSessions,
    isOwn: boolean,
    max: number,
  ): Promise<Candidate[]> {
    const { sessions } = this;
    const { user } = this.physical.tables;
    if (!sessions || !user) return Promise.resolve([]);
    const ownership = isOwnSession(own, sessions);
    const where = allOf([
      ...conditionsOf(filter, sessions),
      isOwn ? ownership : fragment(`not (${ownership.sql})`, ...ownership.parameters),
    ]);
    const [id, userId] = [sessions.column('id'), sessions.column('userId')];
    return this.em.getConnection().execute<Candidate[]>(
      `select s.id::text as id, s.user_id::text as "userId", u.${column(user, 'role')} as role
      from (select ${id} as id, ${userId} as user_id from ${sessions.from} where ${where.sql}
        order by ${sessions.column('createdAt')} desc, ${id} desc limit ?) s
      left join "${this.physical.schema}"."${user.name}" u on u.${column(user, 'id')} = s.user_id`,
      [...where.parameters, max],
    );
  }
}

function conditionsOf(filter: SessionConditions, sessions: SessionTable): SqlFragment[] {
  const { userId, ip, createdFrom, createdTo, impersonated, state, now } = filter;
  const createdAt = fragment(sessions.column('createdAt'));
  const operator = state === 'active' ? ' > ' : ' <= ';
  const conditions = [
    join([fragment(sessions.column('expiresAt')), sessions.time('expiresAt', now)], operator),
  ];
  if (userId !== undefined) conditions.push(sessions.hasUser(userId));
  if (ip !== undefined) conditions.push(isIn(ip, sessions));
  if (createdFrom) {
    conditions.push(join([createdAt, sessions.time('createdAt', createdFrom)], ' >= '));
  }
  if (createdTo) {
    conditions.push(join([createdAt, sessions.time('createdAt', createdTo)], ' <= '));
  }
  if (impersonated !== undefined) {
    const not = impersonated ? 'not ' : '';
    conditions.push(fragment(`${sessions.column('impersonatedBy')} is ${not}null`));
  }
  return conditions;
}

function isOwnSession(own: OwnSessions, sessions: SessionTable): SqlFragment {
  if ('userId' in own) return sessions.hasUser(own.userId);
  return fragment(`${sessions.column('id')} = ?::${sessions.type('id')}`, own.id);
}

/**
 * The index is in the order of addresses, so a network is a range. With the operator `<<=`,
 * PostgreSQL would call the function again for each row that it found in the index.
 */
function isIn(ip: string, { address }: SessionTable): SqlFragment {
  if (/^[^:]*\/32$|\/128$/.test(ip)) return fragment(`${address} = ?::inet`, ip);
  const first = 'host(network(?::inet))::inet';
  const last = 'host(broadcast(?::inet))::inet';
  return fragment(`${address} between ${first} and ${last}`, ip, ip);
}
