import type { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import { AccessPolicy } from '../access/access-policy.js';
import type { Actor } from '../access/actor.js';
import type { Permissions, RequiredPermissions } from '../access/permissions.js';
import type { Principal, UserRow } from '../access/principal.js';
import { AuditService } from '../audit/audit.service.js';
import type { RevokedSession } from '../better-auth/revoked-session.js';
import { Session } from '../better-auth/session.entity.js';
import { User } from '../better-auth/user.entity.js';
import { Environment } from '../config/environment.js';
import { ChangeFeed } from '../database/change-feed.js';
import { isRetryable, TransactionRunner } from '../database/transaction-runner.js';
import { problem } from '../problems/problem.js';
import { AdminCheck } from '../users/admin-check.js';
import { invalidField } from '../validation/invalid-field.js';
import { residualUntil } from './residual.js';
import { readConditions } from './session-list.service.js';
import {
  type Candidate,
  type OwnSessions,
  type SessionConditions,
  SessionListRepository,
} from './session-list.repository.js';
import type {
  RevocationFilter,
  SessionRevocation,
  SessionRevocationResult,
} from './session-revocation.dto.js';
import { SessionRead } from './session.dto.js';

/** The maximum of sessions that one call ends, in transactions of at most `MAX_PER_TRANSACTION`. */
const MAX_PER_CALL = 10_000;
const MAX_PER_TRANSACTION = 1000;
/** A transaction is larger only for a user with more sessions. Other changes run in between. */
const USUAL_PER_TRANSACTION = 250;
/** After this time no transaction begins. The client sends the request again for the others. */
const MAX_DURATION_MS = 8000;
export const REVOCATION_DEADLINE_MS = 9500;
const MAX_SAMPLE = 10;
export const REVOKE: RequiredPermissions = { session: ['revoke'] };
const LIST: RequiredPermissions = { session: ['list'] };

/** Ends the sessions of many users. */
@Injectable()
export class SessionRevocationService {
  constructor(
    private readonly sessions: SessionListRepository,
    private readonly transactions: TransactionRunner,
    private readonly adminCheck: AdminCheck,
    private readonly policy: AccessPolicy,
    private readonly audit: AuditService,
    private readonly feed: ChangeFeed,
    private readonly environment: Environment,
  ) {}

  /**
   * Ends the sessions that match the filter. They are found once, so a session that begins
   * meanwhile continues.
   */
  async revoke(actor: Actor, request: SessionRevocation): Promise<SessionRevocationResult> {
    requireCondition(request.filter);
    const conditions = readConditions(request.filter);
    const found = await this.find(conditions, ownSessionsOf(actor.principal));
    const matches = await this.countMatches(conditions, found, request.expected);
    if (request.expected !== undefined && request.expected !== matches.matched) {
      throw problem('COUNT_MISMATCH', { members: { matched: matches.matched } });
    }
    // The sample contains what the list shows, so it needs the permission of the list.
    const canList = actor.principal.can(LIST);
    const sample = canList ? await this.readSample(conditions, actor) : [];
    const { permissions, user } = actor.principal;
    const others = found.others.filter(({ userId, role }) =>
      this.isAllowed(permissions, { id: userId, role }),
    );
    const skipped = found.others.length - others.length;
    const batches = batchesOf({ ...found, others }, request.includeOwn, user.id);
    if (request.dryRun) {
      const users = new Set(batches.flat().map(({ userId }) => userId)).size;
      return { ...matches, revoked: 0, skipped, users, more: found.more, residual: null, sample };
    }
    const ended = await this.end(actor, batches, request);
    const { revoked, isComplete } = ended;
    return {
      ...matches,
      revoked: revoked.length,
      skipped: skipped + ended.skipped,
      users: new Set(revoked.map(({ userId }) => userId)).size,
      more: found.more || !isComplete,
      residual: residualUntil(revoked, this.environment)?.toISOString() ?? null,
      sample,
    };
  }

  private async find(conditions: SessionConditions, own: OwnSessions): Promise<FoundSessions> {
    const others = await this.sessions.findCandidates(conditions, own, false, MAX_PER_CALL + 1);
    return {
      others: others.slice(0, MAX_PER_CALL),
      more: others.length > MAX_PER_CALL,
      own: await this.sessions.findCandidates(conditions, own, true, MAX_PER_TRANSACTION),
    };
  }

  /** Counts a large number of sessions only for a client that expects a number. */
  private async countMatches(
    conditions: SessionConditions,
    { others, own, more }: FoundSessions,
    expected: number | undefined,
  ): Promise<Pick<SessionRevocationResult, 'matched' | 'matchedIsEstimate'>> {
    const found = others.length + own.length;
    if (!more) return { matched: found, matchedIsEstimate: false };
    if (expected !== undefined) {
      return { matched: await this.sessions.count(conditions, null), matchedIsEstimate: false };
    }
    const { rows } = await this.sessions.estimate(conditions);
    return { matched: Math.max(rows, found + 1), matchedIsEstimate: true };
  }

  private async readSample(conditions: SessionConditions, actor: Actor): Promise<SessionRead[]> {
    const page = { sort: '-createdAt', limit: MAX_SAMPLE, offset: 0, cursor: null } as const;
    const rows = await this.sessions.findPage(conditions, page);
    const currentId = actor.principal.session?.id ?? null;
    return rows.slice(0, MAX_SAMPLE).map(({ session }) => SessionRead.of(session, currentId, true));
  }

  private async end(actor: Actor, batches: Candidate[][], request: SessionRevocation) {
    const startedAt = performance.now();
    const revoked: RevokedSession[] = [];
    let skipped = 0;
    for (const batch of batches) {
      const isLate = performance.now() - startedAt > MAX_DURATION_MS;
      if (isLate) return { revoked, skipped, isComplete: false };
      try {
        const ended = await this.endBatch(actor, batch, request);
        revoked.push(...ended.revoked);
        skipped += ended.skipped;
      } catch (error) {
        // The response must not hide the sessions that have ended. The client repeats the request.
        const isPartial = revoked.length > 0 && isRetryable(error);
        if (isPartial) return { revoked, skipped, isComplete: false };
        throw error;
      }
    }
    return { revoked, skipped, isComplete: true };
  }

  /** Other changes by admins wait for one batch at most. */
  private async endBatch(
    actor: Actor,
    batch: Candidate[],
    { filter, reason = null }: SessionRevocation,
  ): Promise<{ revoked: RevokedSession[]; skipped: number }> {
    const conditions = Object.entries(filter).filter(([, value]) => value !== undefined);
    const recorded = Object.fromEntries(conditions) as Record<string, unknown>;
    const ended = await this.transactions.run(async (em) => {
      const allowed = await this.lockAllowed(em, actor, batch);
      const revoked = await em.getRepository(Session).revokeMany(allowed.map(({ id }) => id));
      await this.adminCheck.requirePermissions(em, actor, REVOKE, revoked);
      const byUser = [...Map.groupBy(revoked, ({ userId }) => userId)];
      const changes = byUser.map(([userId, sessions]) => ({
        action: 'session.revoked_by_filter' as const,
        targetUserId: userId,
        after: { revoked: sessions.length, filter: recorded },
        reason,
      }));
      await this.audit.recordAll(em, actor, changes);
      return { revoked, skipped: batch.length - allowed.length };
    });
    for (const { userId } of ended.revoked) this.feed.notifyUserChanged(userId);
    return ended;
  }

  /** Checks the users again, because they can have more permissions than when they were found. */
  private async lockAllowed(
    em: EntityManager,
    actor: Actor,
    batch: Candidate[],
  ): Promise<Candidate[]> {
    await this.adminCheck.lock(em);
    const userIds = [...new Set(batch.map(({ userId }) => userId))];
    const users = await em.getRepository(User).findAllForShare(userIds);
    const permissions = await this.adminCheck.requirePermissions(em, actor, REVOKE);
    const kept = users.filter((user) => !this.isAllowed(permissions, user)).map(({ id }) => id);
    return batch.filter(({ userId }) => !kept.includes(userId));
  }

  /** The actor must have every permission of the user. */
  private isAllowed(own: Permissions, user: Pick<UserRow, 'id' | 'role'>): boolean {
    return own.includes(this.policy.permissionsOf(user));
  }
}

interface FoundSessions {
  others: Candidate[];
  /** Whether more sessions of others match than one call ends. */
  more: boolean;
  own: Candidate[];
}

/** A token without a session id depends on all sessions of its user. */
function ownSessionsOf({ session, user }: Principal): OwnSessions {
  return session ? { id: session.id } : { userId: user.id };
}

/** A filter without a condition would end the sessions of everybody. */
function requireCondition(filter: RevocationFilter): void {
  const { all, state, ...conditions } = filter;
  const hasCondition =
    state !== 'active' || Object.values(conditions).some((value) => value !== undefined);
  if (all && hasCondition) throw invalidField('filter', 'all excludes every other condition');
  if (!all && !hasCondition) {
    const message =
      'filter must have a condition, or be {"all":true} for the sessions of everybody';
    throw invalidField('filter', message);
  }
}

/**
 * Puts all sessions of a user into one batch, because one audit event records them. Only a user
 * with more sessions than a transaction ends is in several batches. The actor comes last: without
 * the own session, the actor could not end other sessions.
 */
function batchesOf(
  { others, own, more }: FoundSessions,
  includeOwn: boolean,
  actorId: string,
): Candidate[][] {
  const all = includeOwn && !more ? [...others, ...own] : others;
  const byUser = Map.groupBy(all, ({ userId }) => userId);
  const last = byUser.get(actorId) ?? [];
  byUser.delete(actorId);
  const batches: Candidate[][] = [];
  let batch: Candidate[] = [];
  for (const sessions of [...byUser.values(), last]) {
    for (let start = 0; start < sessions.length; start += MAX_PER_TRANSACTION) {
      const part = sessions.slice(start, start + MAX_PER_TRANSACTION);
      if (batch.length > 0 && batch.length + part.length > USUAL_PER_TRANSACTION) {
        batches.push(batch);
        batch = [];
      }
      batch.push(...part);
    }
  }
  return batch.length === 0 ? batches : [...batches, batch];
}
