import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import { SessionTable } from '../better-auth/session-table.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';

/** What the list shows about the sessions of a user. */
export interface SessionSummary {
  /** When the newest session began. Null if none is stored. Impersonated ones do not count. */
  lastSignInAt: Date | null;
  activeSessions: number;
}

/** Summarizes the sessions of the users of a page. */
@Injectable()
export class UserSessionsRepository {
  private readonly sessions: SessionTable | null;

  constructor(
    private readonly em: EntityManager,
    @Inject(PHYSICAL_SCHEMA) physical: PhysicalSchema,
  ) {
    this.sessions = SessionTable.in(physical);
  }

  /** False with `SESSION_BINDING=token-only`, if Better-Auth stores sessions elsewhere. */
  get areStored(): boolean {
    return this.sessions !== null;
  }

  /** The summaries by user id. Without a session table there are none. */
  async summarize(userIds: string[], now: Date): Promise<Map<string, SessionSummary>> {
    const { sessions } = this;
    if (!sessions || userIds.length === 0) return new Map();
    const userId = sessions.column('userId');
    const active = sessions.isActive(now);
    const list = userIds.map(() => '?').join(', ');
    // An impersonation by an admin is no sign-in of the user.
    const rows = await this.em.getConnection().execute<SummaryRow[]>(
      `select ${userId}::text as "userId", count(*) filter (where ${active.sql})::int as active,
        (extract(epoch from max(${sessions.column('createdAt')})
          filter (where ${sessions.column('impersonatedBy')} is null)) * 1000)::float8 as last
      from ${sessions.from} where ${userId} = any(array[${list}]::${sessions.type('userId')}[])
      group by ${userId}`,
      [...active.parameters, ...userIds],
    );
    const found = new Map<string, SessionSummary>();
    for (const { userId: id, active: activeSessions, last } of rows) {
      found.set(id, { activeSessions, lastSignInAt: last === null ? null : new Date(last) });
    }
    return new Map(userIds.map((id) => [id, found.get(id) ?? NO_SESSIONS]));
  }
}

const NO_SESSIONS: SessionSummary = { lastSignInAt: null, activeSessions: 0 };

interface SummaryRow {
  userId: string;
  active: number;
  last: number | null;
}
