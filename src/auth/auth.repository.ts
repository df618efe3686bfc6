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

/** Which session may vouch for a token: the one it names, or any that was there when it was issued. */
export type SessionLookup = { sessionId: string } | { maxCreatedAt: Date };

export interface UserWithSession {
  user: UserRow;
  /** The witness, the one that lasts longest where several could be it; null where there is none. */
  session: SessionRow | null;
  /** The admin of an impersonated session, with a session of their own from before it began. */
  impersonator: UserWithSession | null;
}

/**
 * Who a token speaks for, as the database has it now. Every request asks this, so it is one query for
 * both rows, by primary key and by an index, into plain values and not into entities.
 */
@Injectable()
export class AuthRepository {
  constructor(
    private readonly em: EntityManager,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  async find(userId: string, witness: SessionLookup | null): Promise<UserWithSession | null> {
    const standing = await this.load(userId, witness);
    const session = standing?.session;
    if (!session || session.impersonatedBy === null) return standing;
    // Another query, so that requests without impersonation do not pay for a join.
    const notAfter = new Date(session.createdAt.getTime() + MAX_CLOCK_DIFFERENCE_MS);
    return {
      ...standing,
      impersonator: await this.load(session.impersonatedBy, { maxCreatedAt: notAfter }),
    };
  }

  private async load(
    userId: string,
    witness: SessionLookup | null,
  ): Promise<UserWithSession | null> {
    if (!this.canBe('user', userId)) return null;
    const byId = witness !== null && 'sessionId' in witness;
    if (byId && !this.canBe('session', witness.sessionId)) {
      return this.load(userId, null);
    }
    const { sql, parameters } = this.compose(userId, witness);
    const [row] = await this.em.getConnection().execute<JoinedRow[]>(sql, parameters);
    return row ? toUserWithSession(row) : null;
  }

  private compose(userId: string, witness: SessionLookup | null) {
    const { user, session } = this.physical.tables;
    if (!user) throw new Error('The service does not start without a user table.');
    const from = `${this.name(user)} u`;
    const where = `u.${column(user, 'id')} = ?`;
    if (!witness || !session) {
      return {
        sql: `select ${userColumns(user)} from ${from} where ${where}`,
        parameters: [userId],
      };
    }
    const byId = 'sessionId' in witness;
    const condition = byId
      ? `s.${column(session, 'id')} = ?`
      : `extract(epoch from s.${column(session, 'createdAt')}) <= ?
            and extract(epoch from s.${column(session, 'expiresAt')}) > ?`;
    // The user's own session first: an impersonated one counts only where it is the only one.
    return {
      sql: `select ${userColumns(user)}, ${sessionColumns(session)} from ${from}
        left join lateral (
          select * from ${this.name(session)} s
          where s.${column(session, 'userId')} = u.${column(user, 'id')} and ${condition}
          order by s.${column(session, 'impersonatedBy')} is not null,
            s.${column(session, 'expiresAt')} desc limit 1
        ) s on true
        where ${where}`,
      parameters: [
        ...(byId
          ? [witness.sessionId]
          : [witness.maxCreatedAt.getTime() / 1000, Date.now() / 1000]),
        userId,
      ],
    };
  }

  private name(table: PhysicalTable): string {
    return `"${this.physical.schema}"."${table.name}"`;
  }

  private canBe(table: TableName, id: string): boolean {
    return canBeId(this.physical.tables[table]?.columns['id']?.type ?? 'text', id);
  }
}

/** The servers of one Better-Auth may have clocks that differ; a token has the same second. */
const MAX_CLOCK_DIFFERENCE_MS = 1000;

function toUserWithSession(row: JoinedRow): UserWithSession {
  const session = row['s_id'] == null ? null : toSession(row);
  return { user: toUser(row), session, impersonator: null };
}
