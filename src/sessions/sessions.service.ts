import { Inject, Injectable } from '@nestjs/common';
import { AuditService, type Change } from '../audit/audit.service.js';
import type { Actor } from '../access/actor.js';
import type { SessionRow } from '../access/principal.js';
import { problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { ChangeFeed } from '../database/change-feed.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import { TransactionRunner } from '../database/transaction-runner.js';
import { AdminCheck } from '../users/admin-check.js';
import { UsersRepository } from '../better-auth/users.repository.js';
import { type RevokedSession, countImpersonations } from '../better-auth/revoked-session.js';
import { SessionList, SessionRead, SuccessResponse } from './session.dto.js';
import { Session } from '../better-auth/session.entity.js';
import { SessionsRepository } from '../better-auth/sessions.repository.js';

@Injectable()
export class SessionsService {
  constructor(
    private readonly sessions: SessionsRepository,
    private readonly users: UsersRepository,
    private readonly work: TransactionRunner,
    private readonly administration: AdminCheck,
    private readonly audit: AuditService,
    private readonly feed: ChangeFeed,
    private readonly environment: Environment,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  /** With `SESSION_BINDING=token-only` Better-Auth may keep them where no table is. */
  private get hasSessionTable(): boolean {
    return this.physical.tables.session !== undefined;
  }

  /** The sessions that have not ended, newest first, with the caller's own among them. */
  async list(by: Actor, id: string): Promise<SessionList> {
    const userId = await this.resolveUserId(id);
    if (!this.hasSessionTable) return { items: [], total: 0 };
    const [newest, total] = await this.sessions.findActive(userId, new Date(), MAX_LISTED);
    const rows: SessionRow[] = newest.map((session) => ({ ...rowOf(session), userId }));
    const { session: own, isAdmin } = by.principal;
    const isLeftOut = own?.userId === userId && rows.every((row) => row.id !== own.id);
    if (own && isLeftOut && total > rows.length) rows.splice(MAX_LISTED - 1, 1, own);
    return { items: rows.map((row) => SessionRead.of(row, own?.id ?? null, isAdmin)), total };
  }

  /** Ends one session. Of another user's it says what it says of one that is not there. */
  async revoke(by: Actor, id: string, sessionId: string): Promise<SuccessResponse> {
    const userId = await this.resolveUserId(id);
    if (!this.hasSessionTable) throw problem('NOT_FOUND');
    const ended = await this.end(
      by,
      userId,
      (sessions) => sessions.revoke(userId, sessionId),
      ([session]) => {
        if (!session) throw problem('NOT_FOUND');
        // By the row: a uuid can be written in several ways.
        return { action: 'session.revoked', before: { sessionId: session.id } };
      },
    );
    return this.answer('The session has ended.', ended);
  }

  /**
   * Ends all sessions of a user, or all but the one in which the caller asks for it. The sessions in which
   * the user impersonates somebody end in either case.
   */
  async revokeAll(by: Actor, id: string, except?: 'current'): Promise<SuccessResponse> {
    const userId = await this.resolveUserId(id);
    const kept = except === 'current' ? currentSession(by, userId) : undefined;
    if (!this.hasSessionTable) return this.answer('', []);
    const ended = await this.end(
      by,
      userId,
      (sessions) => sessions.revokeAll(userId, kept),
      (rows) => ({
        action: 'session.revoked_all',
        after: {
          revoked: rows.length,
          kept: kept ?? null,
          ...countImpersonations(userId, rows),
        },
      }),
    );
    return this.answer('The sessions have ended.', ended);
  }

  private async end(
    by: Actor,
    userId: string,
    remove: (sessions: SessionsRepository) => Promise<RevokedSession[]>,
    eventOf: (ended: RevokedSession[]) => Omit<Change, 'targetUserId'>,
  ): Promise<RevokedSession[]> {
    const ended = await this.work.run(async (em) => {
      const rows = await remove(em.getRepository(Session));
      // After the rows are locked, so that an admin who was demoted meanwhile is refused.
      if (userId !== by.principal.user.id) await this.administration.requireAdmin(em, by);
      this.audit.record(em, by, { ...eventOf(rows), targetUserId: userId });
      return rows;
    });
    for (const changed of new Set([userId, ...ended.map((session) => session.userId)])) {
      this.feed.notifyUserChanged(changed);
    }
    return ended;
  }

  /** The id as the row has it: a uuid can be written in several ways, and the record knows one. */
  private async resolveUserId(id: string): Promise<string> {
    const user = await this.users.findReadOnly(id);
    if (!user) throw problem('NOT_FOUND');
    return user.id;
  }

  private answer(message: string, ended: RevokedSession[]): SuccessResponse {
    const isChecked = this.environment.SESSION_BINDING !== 'token-only';
    const text = isChecked ? message : this.hasSessionTable ? UNCHECKED : NOT_HERE;
    return SuccessResponse.of(text, ended.length, this.residual(ended));
  }

  /**
   * A token that names no session is valid as long as its user has a session that is not younger. A new
   * sign-in creates one. Better-Auth's cookie cache issues tokens for an ended session as long as the
   * cached copy lasts, at most until that session would have expired. Such a token can be younger than
   * the new session, and nothing tells it from a token of the new session.
   */
  private residual(ended: RevokedSession[]): Date | null {
    const { SESSION_BINDING, JWT_MAX_LIFETIME_SECONDS, JWT_LEEWAY_SECONDS } = this.environment;
    if (SESSION_BINDING === 'require-sid') return null;
    const expiries = ended.map(({ expiresAt }) => expiresAt.getTime()).filter(Number.isFinite);
    const lastIssue = Math.max(Date.now(), ...expiries);
    // The leeway counts twice: for a clock that is ahead, and for `exp`.
    return new Date(lastIssue + (JWT_MAX_LIFETIME_SECONDS + 2 * JWT_LEEWAY_SECONDS) * 1000);
  }
}

const NOT_HERE =
  'Sessions are not stored in this database, so none has ended. Tokens stay valid until they expire.';
const UNCHECKED =
  'The session rows were deleted, but this service does not check sessions. Tokens stay valid until they expire.';

/** More than anybody looks at; somebody's program may sign in by the thousand. */
const MAX_LISTED = 100;

function currentSession(by: Actor, userId: string): string {
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
