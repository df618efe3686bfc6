import type { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { AccessPolicy } from '../access/access-policy.js';
import { requireNoMoreThan, type RequiredPermissions } from '../access/permissions.js';
import type { RevokedSession } from '../better-auth/revoked-session.js';
import { Session } from '../better-auth/session.entity.js';
import type { User } from '../better-auth/user.entity.js';
import { Environment } from '../config/environment.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import { problem } from '../problems/problem.js';
import { snapshotOf, UserChangeService } from '../users/user-change.service.js';
import type { UserWithEtag } from '../users/user-etag.js';
import type { BanRequest } from './administration.dto.js';

/**
 * Changes to other users: roles and bans. Each change is one transaction.
 *
 * At least one user who may set roles always remains. The actor of a change cannot lose
 * `user:set-role` by it, and cannot ban themselves. Only an actor who has it can remove it
 * from others, or ban users who have it. The transaction keeps the row of the actor locked.
 */
@Injectable()
export class AdministrationService {
  constructor(
    private readonly changes: UserChangeService,
    private readonly environment: Environment,
    private readonly policy: AccessPolicy,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  /** Replaces the roles of a user. A user who loses `user:impersonate` stops impersonating. */
  changeRole(actor: Actor, id: string, roles: string[], ifMatch?: string): Promise<UserWithEtag> {
    this.requireConfiguredRoles(roles);
    return this.changes.run(async (em) => {
      const { user, permissions } = await this.changes.lockAsAdmin(
        em,
        actor,
        id,
        SET_ROLE,
        ifMatch,
      );
      const before = snapshotOf(user);
      const had = this.policy.permissionsOf(user);
      user.role = roles.join(',');
      const has = this.policy.permissionsOf(user);
      requireNoMoreThan(permissions, has);
      const losesSetRole = had.can(SET_ROLE) && !has.can(SET_ROLE);
      if (losesSetRole && user.id === actor.principal.user.id) throw problem('SELF_DEMOTION');
      const mustEnd = had.can(IMPERSONATE) && !has.can(IMPERSONATE);
      const revoked = mustEnd ? await this.revokeImpersonations(em, user) : [];
      const action = 'user.role_changed';
      return this.changes.record(em, actor, user, before, { action, revoked });
    });
  }

  /** Bans a user and revokes every session. Better-Auth checks a ban only at sign-in. */
  ban(
    actor: Actor,
    id: string,
    { reason, expiresAt }: BanRequest,
    ifMatch?: string,
  ): Promise<UserWithEtag> {
    const banExpires = futureTime(expiresAt);
    return this.changes.run(async (em) => {
      const { user } = await this.changes.lockAsAdmin(em, actor, id, BAN, ifMatch);
      // Compares the id from the row, because a uuid has more than one spelling.
      if (user.id === actor.principal.user.id) throw problem('SELF_BAN');
      const before = snapshotOf(user);
      Object.assign(user, { banned: true, banReason: reason ?? null, banExpires });
      const revoked = await this.revokeSessions(em, user);
      return this.changes.record(em, actor, user, before, {
        action: 'user.banned',
        revoked,
        reason: user.banReason,
        // A repeated ban can revoke sessions that began after the first one.
        recordUnchanged: true,
      });
    });
  }

  /** Lifts a ban. Revoked sessions stay revoked. */
  unban(actor: Actor, id: string, ifMatch?: string): Promise<UserWithEtag> {
    return this.changes.run(async (em) => {
      const { user } = await this.changes.lockAsAdmin(em, actor, id, BAN, ifMatch);
      const before = snapshotOf(user);
      Object.assign(user, { banned: false, banReason: null, banExpires: null });
      return this.changes.record(em, actor, user, before, { action: 'user.unbanned' });
    });
  }

  private requireConfiguredRoles(roles: string[]): void {
    const { ROLES } = this.environment;
    if (roles.every((role) => ROLES.includes(role))) return;
    const message = `role must be one of ${ROLES.join(', ')}`;
    throw problem('VALIDATION_ERROR', { errors: [{ field: 'role', message }] });
  }

  private async revokeSessions(em: EntityManager, user: User): Promise<RevokedSession[]> {
    return this.hasSessionTable ? em.getRepository(Session).revokeAll(user.id) : [];
  }

  private async revokeImpersonations(em: EntityManager, user: User): Promise<RevokedSession[]> {
    return this.hasSessionTable ? em.getRepository(Session).revokeImpersonationsBy(user.id) : [];
  }

  /** With `SESSION_BINDING=token-only` Better-Auth can store sessions outside this database. */
  private get hasSessionTable(): boolean {
    return this.physical.tables.session !== undefined;
  }
}

const SET_ROLE: RequiredPermissions = { user: ['set-role'] };
const BAN: RequiredPermissions = { user: ['ban'] };
const IMPERSONATE: RequiredPermissions = { user: ['impersonate'] };

function futureTime(text: string | null | undefined): Date | null {
  if (text == null) return null;
  const time = new Date(text);
  if (time > new Date()) return time;
  const message = 'expiresAt must be in the future';
  throw problem('VALIDATION_ERROR', { errors: [{ field: 'expiresAt', message }] });
}
