import type { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { isAdmin, isBanned } from '../access/user-rules.js';
import { unauthorized } from '../problems/unauthorized.js';
import { problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { Session } from '../better-auth/session.entity.js';
import { User } from '../better-auth/user.entity.js';

/** Checks the rights of an admin again, inside the transaction of a change to another user. */
@Injectable()
export class AdminCheck {
  constructor(private readonly environment: Environment) {}

  /**
   * Makes changes to other users run one after another. Two admins who change each other cannot
   * deadlock. Two concurrent demotions cannot each count the other user as the remaining admin.
   */
  async lock(em: EntityManager): Promise<void> {
    const context = em.getTransactionContext();
    await em
      .getConnection()
      .execute('select pg_advisory_xact_lock(?)', [ADMIN_LOCK_ID], 'all', context);
  }

  /**
   * Call it after the target is locked: the actor can lose their rights while this change waits.
   * The row lock keeps the actor's row unchanged until the change commits. The session is read
   * without a lock, because a lock would need the right to update sessions.
   */
  async requireAdmin(em: EntityManager, { principal }: Actor): Promise<void> {
    const { user, session } = principal;
    const actor = await em.getRepository(User).findForShare(user.id);
    const now = new Date();
    // An impersonated session never has admin rights, even if the user is an admin now.
    const isImpersonated = principal.impersonatedBy !== null;
    if (!actor || isImpersonated || !isAdmin(actor, this.environment) || isBanned(actor, now)) {
      throw problem('AUTH_FORBIDDEN');
    }
    if (session === null) return;
    if (!(await em.getRepository(Session).isActive(session.id, now))) {
      throw unauthorized('AUTH_SESSION_REVOKED');
    }
  }
}

const ADMIN_LOCK_ID = 7_426_283_452;
