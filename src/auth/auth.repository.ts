import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import {
  canBeId,
  PHYSICAL_SCHEMA,
  type PhysicalSchema,
  type PhysicalTable,
  type TableName,
} from '../database/physical-schema.js';
import {
  column,
  type JoinedRow,
  sessionColumns,
  toSession,
  toUser,
  userColumns,
} from '../better-auth/rows.js';
import type { SessionRow, UserRow } from '../access/principal.js';
import { MAX_CLOCK_DIFFERENCE_MS } from '../access/session-rules.js';

/** Selects the session of a token: by its id, or the sessions that existed when it was issued. */
export type SessionLookup = { sessionId: string } | { maxCreatedAt: Date };

export interface UserWithSession {
  user: UserRow;
  /** The selected session. Of several, the one that expires last. Null if there is none. */
  session: SessionRow | null;
  /** The admin of an impersonated session, with an own session that existed when it started. */
  impersonator: UserWithSession | null;
}

/**
 * Reads the user and the session of a token from the database. This is on the path of every
 * uncached request. So it is one query by primary key and by index, into plain values without
 * entities.
 */
@Injectable()
export class AuthRepository {
  constructor(
    private readonly em: EntityManager,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  async find(userId: string, lookup: SessionLookup | null): Promise<UserWithSession | null> {
    const found = await this.load(userId, lookup);
    const session = found?.session;
    if (!session || session.impersonatedBy === null) return found;
    // A separate query, so that requests without impersonation do not pay for a join.
    const maxCreatedAt = new Date(session.createdAt.getTime() + MAX_CLOCK_DIFFERENCE_MS);
    return {
      ...found,
      impersonator: await this.load(session.impersonatedBy, { maxCreatedAt }),
    };
  }

  private async load(
    userId: string,
    lookup: SessionLookup | null,
  ): Promise<UserWithSession | null> {
    if (!this.canBeIdOf('user', userId)) return null;
    const isById = lookup !== null && 'sessionId' in lookup;
    if (isById && !this.canBeIdOf('session', lookup.sessionId)) {
      return this.load(userId, null);
    }
    const { sql, parameters } = this.compose(userId, lookup);
    const [row] = await this.em.getConnection().execute<JoinedRow[]>(sql, parameters);
    return row ? toUserWithSession(row) : null;
  }

  private compose(userId: string, lookup: SessionLookup | null) {
    const { user, session } = this.physical.tables;
    if (!user) throw new Error('The service does not start without a user table.');
    const from = `${this.name(user)} u`;
    const where = `u.${column(user, 'id')} = ?`;
    if (!lookup || !session) {
      return {
        sql: `select ${userColumns(user)} from ${from} where ${where}`,
        parameters: [userId],
      };
    }
    const isById = 'sessionId' in lookup;
    const condition = isById
      ? `s.${column(session, 'id')} = ?`
      : `extract(epoch from s.${column(session, 'createdAt')}) <= ?
            and extract(epoch from s.${column(session, 'expiresAt')}) > ?`;
    // An impersonated session is selected only if the user has no other session. The columns have
    // names, because the role of the service may not read the token.
    return {
      sql: `select ${userColumns(user)}, s.* from ${from}
        left join lateral (
          select ${sessionColumns(session)} from ${this.name(session)} s
          where s.${column(session, 'userId')} = u.${column(user, 'id')} and ${condition}
          order by s.${column(session, 'impersonatedBy')} is not null,
            s.${column(session, 'expiresAt')} desc limit 1
        ) s on true
        where ${where}`,
      parameters: [
        ...(isById
          ? [lookup.sessionId]
          : [lookup.maxCreatedAt.getTime() / 1000, Date.now() / 1000]),
        userId,
      ],
    };
  }

  private name(table: PhysicalTable): string {
    return `"${this.physical.schema}"."${table.name}"`;
  }

  private canBeIdOf(table: TableName, id: string): boolean {
    return canBeId(this.physical.tables[table]?.columns['id']?.type ?? 'text', id);
  }
}

function toUserWithSession(row: JoinedRow): UserWithSession {
  const session = row['s_id'] == null ? null : toSession(row);
  return { user: toUser(row), session, impersonator: null };
}
