import type { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { AccessPolicy } from '../access/access-policy.js';
import { requireNoMoreThan, type RequiredPermissions } from '../access/permissions.js';
import { isBanned } from '../access/user-rules.js';
import type { RevokedSession } from '../better-auth/revoked-session.js';
import { Session } from '../better-auth/session.entity.js';
import { User } from '../better-auth/user.entity.js';
import { Environment } from '../config/environment.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import { problem } from '../problems/problem.js';
import { snapshotOf, UserChangeService } from '../users/user-change.service.js';
import type { UserWithEtag } from '../users/user-etag.js';
import type { BanRequest } from './administration.dto.js';

/** The changes to other users: roles and bans. Each one is a single transaction. */
@Injectable()
export class AdministrationService {
  constructor(
    private readonly changes: UserChangeService,
    private readonly environment: Environment,
    private readonly policy: AccessPolicy,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  /** Replaces the roles of a user. A user who may no longer impersonate others stops doing so. */
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
      if (had.can(SET_ROLE) && !has.can(SET_ROLE)) {
        if (user.id === actor.principal.user.id) throw problem('SELF_DEMOTION');
        await this.requireAnotherAdmin(em, user);
      }
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
      if (this.canSetRole(user)) await this.requireAnotherAdmin(em, user);
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

  /** At least one other user who can change roles and is not banned must remain. */
  private async requireAnotherAdmin(em: EntityManager, user: User): Promise<void> {
    const { ADMIN_USER_IDS } = this.environment;
    const roles = this.policy.rolesThatCan(SET_ROLE);
    const candidates = await em.getRepository(User).findByRoles(roles, ADMIN_USER_IDS);
    const now = new Date();
    const hasAnotherAdmin = candidates.some(
      (other) => other.id !== user.id && this.canSetRole(other) && !isBanned(other, now),
    );
    if (!hasAnotherAdmin) throw problem('LAST_ADMIN');
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

  private canSetRole(user: User): boolean {
    return this.policy.permissionsOf(user).can(SET_ROLE);
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
