import type { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/audit.service.js';
import type { Caller } from '../auth/caller.js';
import type { SessionRow } from '../auth/principal.js';
import { problem } from '../common/problem.js';
import { PHYSICAL_SCHEMA } from '../common/foundation.module.js';
import { Environment } from '../config/environment.js';
import { ChangeFeed } from '../database/change-feed.js';
import type { PhysicalSchema } from '../database/physical-schema.js';
import { UnitOfWork } from '../database/unit-of-work.js';
import { UsersRepository } from '../users/users.repository.js';
import { SessionList, SessionRead, SuccessResponse } from './session.dto.js';
import { Session } from './session.entity.js';
import { SessionsRepository } from './sessions.repository.js';

@Injectable()
export class SessionsService {
  constructor(
    private readonly sessions: SessionsRepository,
    private readonly users: UsersRepository,
    private readonly work: UnitOfWork,
    private readonly audit: AuditService,
    private readonly feed: ChangeFeed,
    private readonly environment: Environment,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  /** With `SESSION_BINDING=token-only` Better-Auth may keep them where no table is. */
  private get areHere(): boolean {
    return this.physical.tables.session !== undefined;
  }

  /** The sessions that have not ended, newest first, with the caller's own among them. */
  async listOf(by: Caller, id: string): Promise<SessionList> {
    const userId = await this.canonical(id);
    if (!this.areHere) return { items: [], total: 0 };
    const [newest, total] = await this.sessions.newestOf(userId, new Date(), MOST_LISTED);
    const rows: SessionRow[] = newest.map((session) => ({ ...rowOf(session), userId }));
    const { session: own, isAdmin } = by.principal;
    const isLeftOut = own?.userId === userId && rows.every((row) => row.id !== own.id);
    if (own && isLeftOut && total > rows.length) rows.splice(MOST_LISTED - 1, 1, own);
    return { items: rows.map((row) => SessionRead.of(row, own?.id ?? null, isAdmin)), total };
  }

  /** Ends one session. Of another user's it says what it says of one that is not there. */
  async endOne(by: Caller, id: string, sessionId: string): Promise<SuccessResponse> {
    const userId = await this.canonical(id);
    if (!this.areHere) throw problem('NOT_FOUND');
    return this.end(userId, async (em) => {
      const revoked = await em.getRepository(Session).endOne(userId, sessionId);
      if (revoked === 0) throw problem('NOT_FOUND');
      this.audit.record(em, by, {
        action: 'session.revoked',
        targetUserId: userId,
        before: { sessionId },
      });
      const last = await em.getRepository(Session).lastEndOf(userId, new Date());
      return SuccessResponse.of('The session has ended.', revoked, this.residual(last));
    });
  }

  /** Ends all sessions of a user, or all but the one in which the caller asks for it. */
  async endAll(by: Caller, id: string, except?: 'current'): Promise<SuccessResponse> {
    const userId = await this.canonical(id);
    const kept = except === 'current' ? currentSession(by, userId) : undefined;
    if (!this.areHere) {
      return SuccessResponse.of('The sessions are kept elsewhere.', 0, this.residual(null));
    }
    return this.end(userId, async (em) => {
      const revoked = await em.getRepository(Session).endAllOf(userId, kept);
      this.audit.record(em, by, {
        action: 'session.revoked_all',
        targetUserId: userId,
        after: { revoked, kept: kept ?? null },
      });
      const last = await em.getRepository(Session).lastEndOf(userId, new Date());
      return SuccessResponse.of('The sessions have ended.', revoked, this.residual(last));
    });
  }

  private async end(
    userId: string,
    work: (em: EntityManager) => Promise<SuccessResponse>,
  ): Promise<SuccessResponse> {
    const answer = await this.work.run(work);
    this.feed.userChanged(userId);
    return answer;
  }

  /** The id as the row has it: a uuid can be written in several ways, and the record knows one. */
  private async canonical(id: string): Promise<string> {
    const user = await this.users.read(id);
    if (!user) throw problem('NOT_FOUND');
    return user.id;
  }

  /**
   * A token that names no session is good as long as one is left that is as old as it. So it may live on
   * beside the sessions that are left, but not longer than them, nor than tokens may live at all.
   */
  private residual(lastEnd: Date | null): Date | null {
    const { SESSION_BINDING, JWT_MAX_LIFETIME_SECONDS } = this.environment;
    if (SESSION_BINDING === 'require-sid') return null;
    const longest = Date.now() + JWT_MAX_LIFETIME_SECONDS * 1000;
    if (SESSION_BINDING === 'token-only') return new Date(longest);
    return lastEnd && new Date(Math.min(longest, lastEnd.getTime()));
  }
}

/** More than anybody looks at; somebody's program may sign in by the thousand. */
const MOST_LISTED = 100;

function currentSession(by: Caller, userId: string): string {
  const { session } = by.principal;
  if (session?.userId === userId) return session.id;
  throw problem('VALIDATION_ERROR', {
    errors: [
      { field: 'except', message: 'your token names no session of this user that could be kept' },
    ],
  });
}

function rowOf(session: Session) {
  const { id, createdAt, updatedAt, expiresAt, ipAddress, userAgent, impersonatedBy } = session;
  return { id, createdAt, updatedAt, expiresAt, ipAddress, userAgent, impersonatedBy };
}
