import type { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import type { RequiredPermissions } from '../access/permissions.js';
import type { SessionRow } from '../access/principal.js';
import { AuditService } from '../audit/audit.service.js';
import { type RevokedSession, countImpersonations } from '../better-auth/revoked-session.js';
import { Session } from '../better-auth/session.entity.js';
import { SessionsRepository } from '../better-auth/sessions.repository.js';
import { User } from '../better-auth/user.entity.js';
import { UsersRepository } from '../better-auth/users.repository.js';
import { Environment } from '../config/environment.js';
import { ChangeFeed } from '../database/change-feed.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import { TransactionRunner } from '../database/transaction-runner.js';
import { problem } from '../problems/problem.js';
import { AdminCheck } from '../users/admin-check.js';
import { residualUntil } from './residual.js';
import { SessionList, SessionRead, SuccessResponse } from './session.dto.js';

@Injectable()
export class SessionsService {
  constructor(
    private readonly sessions: SessionsRepository,
    private readonly users: UsersRepository,
    private readonly transactions: TransactionRunner,
    private readonly adminCheck: AdminCheck,
    private readonly audit: AuditService,
    private readonly feed: ChangeFeed,
    private readonly environment: Environment,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  /** Lists the newest active sessions of a user. The actor's own session is always included. */
  async list(actor: Actor, id: string): Promise<SessionList> {
    const userId = await this.resolveUserId(id);
    if (!this.hasSessionTable) return { items: [], total: 0 };
    const [newest, total] = await this.sessions.findActive(userId, new Date(), MAX_LISTED);
    const rows: SessionRow[] = newest.map((session) => ({ ...rowOf(session), userId }));
    const { session: own, can } = actor.principal;
    const isOwnMissing = own?.userId === userId && rows.every((row) => row.id !== own.id);
    if (own && isOwnMissing && total > rows.length) rows.splice(MAX_LISTED - 1, 1, own);
    const canListOthers = can({ session: ['list'] });
    return { items: rows.map((row) => SessionRead.of(row, own?.id ?? null, canListOthers)), total };
  }

  /** Ends one session. The response is the same for another user's session and a missing one. */
  async revoke(actor: Actor, id: string, sessionId: string): Promise<SuccessResponse> {
    const userId = await this.resolveUserId(id);
    if (!this.hasSessionTable) throw problem('SESSION_NOT_FOUND');
    const revoked = await this.transactions.run(async (em) => {
      const other = await this.lockActors(em, actor, userId);
      const rows = await em.getRepository(Session).revoke(userId, sessionId);
      await this.requireSelfOrPermission(em, actor, other, rows);
      const [session] = rows;
      if (!session) throw problem('SESSION_NOT_FOUND');
      this.audit.record(em, actor, {
        action: 'session.revoked',
        targetUserId: userId,
        // Records the id from the row, because a uuid has more than one spelling.
        before: { sessionId: session.id },
      });
      return rows;
    });
    this.notifyUsers(userId, revoked);
    return this.responseFor('The session has ended.', revoked);
  }

  /**
   * Ends all sessions of a user, or all except the actor's current one. The sessions in which the
   * user impersonates others always end.
   */
  async revokeAll(actor: Actor, id: string, except?: 'current'): Promise<SuccessResponse> {
    const userId = await this.resolveUserId(id);
    const keptId = except === 'current' ? currentSessionId(actor, userId) : undefined;
    if (!this.hasSessionTable) return this.responseFor('', []);
    const revoked = await this.transactions.run(async (em) => {
      const other = await this.lockActors(em, actor, userId);
      const rows = await em.getRepository(Session).revokeAll(userId, keptId);
      await this.requireSelfOrPermission(em, actor, other, rows);
      this.audit.record(em, actor, {
        action: 'session.revoked_all',
        targetUserId: userId,
        after: {
          revoked: rows.length,
          kept: keptId ?? null,
          ...countImpersonations(userId, rows),
        },
      });
      return rows;
    });
    this.notifyUsers(userId, revoked);
    return this.responseFor('The sessions have ended.', revoked);
  }

  /**
   * Locks what a ban locks before the sessions: another user, or the administration for an
   * impersonated session. In another order, the ban and this change could wait for each other.
   * Returns the other user, whose permissions cannot change until this change commits.
   */
  private async lockActors(
    em: EntityManager,
    { principal }: Actor,
    userId: string,
  ): Promise<OtherUser> {
    if (principal.impersonatedBy !== null) await this.adminCheck.lock(em);
    if (principal.user.id === userId) return 'self';
    return em.getRepository(User).findForShare(userId);
  }

  /** Call it after the rows are locked: the actor can lose the permission while it waits. */
  private async requireSelfOrPermission(
    em: EntityManager,
    actor: Actor,
    other: OtherUser,
    revoked: RevokedSession[],
  ): Promise<void> {
    if (other === 'self') await this.adminCheck.requireImpersonator(em, actor, revoked);
    else await this.adminCheck.requirePermissionsOver(em, actor, REVOKE, other);
  }

  private notifyUsers(userId: string, revoked: RevokedSession[]): void {
    const userIds = new Set([userId, ...revoked.map((session) => session.userId)]);
    for (const changedId of userIds) this.feed.notifyUserChanged(changedId);
  }

  /** Returns the id from the row: a uuid has several spellings, and audit events use this one. */
  private async resolveUserId(id: string): Promise<string> {
    const user = await this.users.findReadOnly(id);
    if (!user) throw problem('USER_NOT_FOUND');
    return user.id;
  }

  /** With `SESSION_BINDING=token-only` Better-Auth can store sessions outside this database. */
  private get hasSessionTable(): boolean {
    return this.physical.tables.session !== undefined;
  }

  private responseFor(message: string, revoked: RevokedSession[]): SuccessResponse {
    const isChecked = this.environment.SESSION_BINDING !== 'token-only';
    const uncheckedMessage = this.hasSessionTable ? SESSIONS_NOT_CHECKED : SESSIONS_NOT_STORED;
    return SuccessResponse.of(
      isChecked ? message : uncheckedMessage,
      revoked.length,
      residualUntil(revoked, this.environment),
    );
  }
}

/** The user whose sessions an actor ends. Null if the user was removed meanwhile. */
type OtherUser = User | 'self' | null;

const REVOKE: RequiredPermissions = { session: ['revoke'] };

const SESSIONS_NOT_STORED =
  'This database does not store sessions, so no session has ended. Tokens stay valid until they expire.';
const SESSIONS_NOT_CHECKED =
  'The session rows were deleted, but this service does not check sessions. Tokens stay valid until they expire.';

/** Bounds the response, because a program can create thousands of sessions. */
const MAX_LISTED = 100;

function currentSessionId(actor: Actor, userId: string): string {
  const { session } = actor.principal;
  if (session?.userId === userId) return session.id;
  throw problem('VALIDATION_ERROR', {
    errors: [{ field: 'except', message: 'your token names no session of this user to keep' }],
  });
}

function rowOf(session: Session) {
  const { id, createdAt, updatedAt, expiresAt, ipAddress, userAgent, impersonatedBy } = session;
  return { id, createdAt, updatedAt, expiresAt, ipAddress, userAgent, impersonatedBy };
}
