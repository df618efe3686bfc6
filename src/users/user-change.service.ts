import type { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import type { Permissions, RequiredPermissions } from '../access/permissions.js';
import { AdminCheck } from './admin-check.js';
import type { AuditAction } from '../audit/audit-event.entity.js';
import { AuditService } from '../audit/audit.service.js';
import { type RevokedSession, countImpersonations } from '../better-auth/revoked-session.js';
import { User } from '../better-auth/user.entity.js';
import { ChangeFeed } from '../database/change-feed.js';
import { TransactionRunner } from '../database/transaction-runner.js';
import { requireMatch } from '../http/etag.js';
import { problem } from '../problems/problem.js';
import { type UserWithEtag, withEtag } from './user-etag.js';

/** The values of a user that a change can affect. */
export type UserSnapshot = Readonly<Record<string, unknown>>;

/** A user who is locked for a change, and the permissions of the actor. */
export interface LockedUser {
  user: User;
  permissions: Permissions;
}

/** A user after a change, and the sessions that the change revoked. */
export interface ChangedUser {
  result: UserWithEtag;
  revoked: RevokedSession[];
}

/** What the audit event of a change contains besides the changed values. */
export interface ChangeRecord {
  action: AuditAction;
  revoked?: RevokedSession[];
  reason?: string | null;
  /** Records the change even if it changes no value. */
  recordUnchanged?: boolean;
}

/** The steps that every change to a user has in common: lock and check, then record. */
@Injectable()
export class UserChangeService {
  constructor(
    private readonly transactions: TransactionRunner,
    private readonly adminCheck: AdminCheck,
    private readonly audit: AuditService,
    private readonly feed: ChangeFeed,
  ) {}

  /** Runs a change as one transaction, then reports every affected user to the change feed. */
  async run(change: (em: EntityManager) => Promise<ChangedUser>): Promise<UserWithEtag> {
    const { result, revoked } = await this.transactions.run(change);
    const userIds = new Set([result.user.id, ...revoked.map((session) => session.userId)]);
    for (const userId of userIds) this.feed.notifyUserChanged(userId);
    return result;
  }

  /** Locks a user for a change that needs permissions, even if the user is the actor. */
  async lockAsAdmin(
    em: EntityManager,
    actor: Actor,
    id: string,
    required: RequiredPermissions,
    ifMatch?: string,
  ): Promise<LockedUser> {
    await this.adminCheck.lock(em);
    const user = await em.getRepository(User).findForUpdate(id);
    const permissions = await this.adminCheck.requirePermissionsOver(em, actor, required, user);
    return { user: requireVersion(user, ifMatch), permissions };
  }

  /** Locks a user for a change that users can make to themselves without permissions. */
  async lockAsSelfOrAdmin(
    em: EntityManager,
    actor: Actor,
    id: string,
    required: RequiredPermissions,
    ifMatch?: string,
  ): Promise<User> {
    const { user: self, impersonatedBy } = actor.principal;
    if (id !== self.id || impersonatedBy !== null) await this.adminCheck.lock(em);
    const user = await em.getRepository(User).findForUpdate(id);
    // Compares the id from the row, because a uuid has more than one spelling.
    if (user?.id !== self.id)
      await this.adminCheck.requirePermissionsOver(em, actor, required, user);
    else await this.adminCheck.requireImpersonator(em, actor);
    return requireVersion(user, ifMatch);
  }

  /** Records the changed values. A change that changes no value is normally not recorded. */
  record(
    em: EntityManager,
    actor: Actor,
    user: User,
    before: UserSnapshot,
    { action, revoked = [], reason = null, recordUnchanged = false }: ChangeRecord,
  ): ChangedUser {
    const after = snapshotOf(user);
    const changed = Object.keys(after).filter((key) => !isEqual(before[key], after[key]));
    if (changed.length > 0 || recordUnchanged) {
      user.updatedAt = new Date();
      this.audit.record(em, actor, {
        action,
        targetUserId: user.id,
        before: pick(before, changed),
        after: { ...pick(after, changed), ...countImpersonations(user.id, revoked) },
        reason,
      });
    }
    return { result: withEtag(user), revoked };
  }
}

export function snapshotOf(user: User): UserSnapshot {
  const { name, image, role, banned, banReason, banExpires } = user;
  return { name, image, role, banned, banReason, banExpires };
}

function requireVersion(user: User | null, ifMatch: string | undefined): User {
  if (!user) throw problem('USER_NOT_FOUND');
  requireMatch(ifMatch, withEtag(user).etag);
  return user;
}

function isEqual(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function pick(values: UserSnapshot, keys: string[]): Record<string, unknown> {
  return Object.fromEntries(keys.map((key) => [key, values[key]]));
}
