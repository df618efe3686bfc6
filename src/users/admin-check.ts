import type { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { isAdmin, isBanned } from '../access/user-rules.js';
import { unauthorized } from '../problems/unauthorized.js';
import { problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { Session } from '../better-auth/session.entity.js';
import { User } from '../better-auth/user.entity.js';

/** The rights of an admin, checked again inside the transaction of a change to somebody else. */
@Injectable()
export class AdminCheck {
  constructor(private readonly environment: Environment) {}

  /**
   * Changes to other users run one after another. Two admins who change each other cannot deadlock, and
   * two demotions cannot each count the other's target as the admin that remains.
   */
  async lock(em: EntityManager): Promise<void> {
    const context = em.getTransactionContext();
    await em
      .getConnection()
      .execute('select pg_advisory_xact_lock(?)', [ADMIN_LOCK_ID], 'all', context);
  }

  /**
   * Call it when the target is locked: the caller may have lost their rights while this change waited.
   * The lock keeps the caller's row as it is until the change commits. The session is read without a
   * lock, which would need the right to update sessions.
   */
  async requireAdmin(em: EntityManager, { principal }: Actor): Promise<void> {
    const { user, session } = principal;
    const caller = await em.getRepository(User).findForShare(user.id);
    const now = new Date();
    // In an impersonated session nobody is an admin, whatever the row says meanwhile.
    const isImpersonated = principal.impersonatedBy !== null;
    if (!caller || isImpersonated || !isAdmin(caller, this.environment) || isBanned(caller, now)) {
      throw problem('AUTH_FORBIDDEN');
    }
    if (session === null) return;
    if (!(await em.getRepository(Session).isActive(session.id, now))) {
      throw unauthorized('AUTH_SESSION_REVOKED');
    }
  }
}

const ADMIN_LOCK_ID = 7_426_283_452;
