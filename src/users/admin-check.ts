import type { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { AccessPolicy } from '../access/access-policy.js';
import {
  type Permissions,
  requireNoMoreThan,
  requirePermissions,
  type RequiredPermissions,
} from '../access/permissions.js';
import type { Principal, UserRow } from '../access/principal.js';
import { latestSessionStart, MAX_CLOCK_DIFFERENCE_MS } from '../access/session-rules.js';
import { isBanned } from '../access/user-rules.js';
import { unauthorized } from '../problems/unauthorized.js';
import { problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { LOCKS } from '../database/advisory-locks.js';
import type { RevokedSession } from '../better-auth/revoked-session.js';
import { Session } from '../better-auth/session.entity.js';
import { User } from '../better-auth/user.entity.js';

/** Checks the permissions of the actor again, inside the transaction of a change. */
@Injectable()
export class AdminCheck {
  constructor(
    private readonly environment: Environment,
    private readonly policy: AccessPolicy,
  ) {}

  /**
   * Makes changes to other users and changes in impersonated sessions run one after another. Two
   * admins who change each other cannot deadlock. Of two admins who demote each other, the second
   * finds that the first has won.
   */
  async lock(em: EntityManager): Promise<void> {
    const context = em.getTransactionContext();
    await em
      .getConnection()
      .execute('select pg_advisory_xact_lock(?)', [LOCKS.administration], 'all', context);
  }

  /**
   * Returns all permissions of the actor. Call it after the target is locked: the actor can lose
   * permissions while this change waits. The row lock keeps the actor's row unchanged until the
   * change commits. The session is read without a lock, because a lock would need the right to
   * update sessions. The change itself may have revoked it.
   */
  async requirePermissions(
    em: EntityManager,
    { principal }: Actor,
    required: RequiredPermissions,
    revoked: RevokedSession[] = [],
  ): Promise<Permissions> {
    const actor = await em.getRepository(User).findForShare(principal.user.id);
    const now = new Date();
    // An impersonated session never has permissions, even if the user is an admin now.
    const isImpersonated = principal.impersonatedBy !== null;
    if (!actor || isImpersonated || isBanned(actor, now)) throw problem('AUTH_FORBIDDEN');
    const permissions = this.policy.permissionsOf(actor);
    requirePermissions(permissions, required);
    if (!(await this.hasActiveSession(em, principal, now, revoked))) {
      throw unauthorized('AUTH_SESSION_REVOKED');
    }
    return permissions;
  }

  /** As `requirePermissions`. The locked target must not have permissions that the actor lacks. */
  async requirePermissionsOver(
    em: EntityManager,
    actor: Actor,
    required: RequiredPermissions,
    target: User | null,
  ): Promise<Permissions> {
    const permissions = await this.requirePermissions(em, actor, required);
    if (target) requireNoMoreThan(permissions, this.policy.permissionsOf(target));
    return permissions;
  }

  /**
   * Call it after the target is locked, for a change that users make to themselves. An impersonated
   * session can end while this change waits. The change itself may have revoked it.
   */
  async requireImpersonator(
    em: EntityManager,
    { principal }: Actor,
    revoked: RevokedSession[] = [],
  ): Promise<void> {
    const { impersonatedBy, session, token } = principal;
    if (impersonatedBy === null) return;
    const admin = await em.getRepository(User).findForShare(impersonatedBy);
    const now = new Date();
    if (admin && this.mayImpersonate(admin) && !isBanned(admin, now)) {
      const maxCreatedAt = session
        ? new Date(session.createdAt.getTime() + MAX_CLOCK_DIFFERENCE_MS)
        : latestSessionStart(token);
      const ownSession = { userId: admin.id, impersonatedBy: null, maxCreatedAt };
      const isSignedIn = await em.getRepository(Session).hasActive(ownSession, now, revoked);
      if (isSignedIn && (await this.hasActiveSession(em, principal, now, revoked))) return;
    }
    throw unauthorized('AUTH_SESSION_REVOKED');
  }

  private mayImpersonate(user: UserRow): boolean {
    return this.policy.permissionsOf(user).can({ user: ['impersonate'] });
  }

  /** With `SESSION_BINDING=token-only` sessions are not checked, and can have no table. */
  private async hasActiveSession(
    em: EntityManager,
    { user, session, token, impersonatedBy }: Principal,
    now: Date,
    revoked: RevokedSession[] = [],
  ): Promise<boolean> {
    if (this.environment.SESSION_BINDING === 'token-only') return true;
    const bound = session ? { id: session.id } : { maxCreatedAt: latestSessionStart(token) };
    const wanted = { userId: user.id, impersonatedBy, ...bound };
    return em.getRepository(Session).hasActive(wanted, now, revoked);
  }
}
