import type { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import { type AuditAction } from '../audit/audit-event.entity.js';
import { AuditService } from '../audit/audit.service.js';
import type { Actor } from '../access/actor.js';
import { isAdmin, isBanned } from '../access/user-rules.js';
import { etagOf, requireMatch } from '../http/etag.js';
import { problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { ChangeFeed } from '../database/change-feed.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from '../database/physical-schema.js';
import { TransactionRunner } from '../database/transaction-runner.js';
import { type RevokedSession, countImpersonations } from '../better-auth/revoked-session.js';
import { SessionsRepository } from '../better-auth/sessions.repository.js';
import { Session } from '../better-auth/session.entity.js';
import { AdminCheck } from './admin-check.js';
import type { BanRequest, UserUpdate } from './user-changes.dto.js';
import { UserRead } from './user.dto.js';
import { User } from '../better-auth/user.entity.js';
import { UsersRepository } from '../better-auth/users.repository.js';

/** A user and the tag of what the client is shown. */
export interface UserWithEtag {
  user: UserRead;
  etag: string;
}

/** Each change is one transaction: lock, check, change, end sessions where it says so, record. */
@Injectable()
export class UsersService {
  constructor(
    private readonly users: UsersRepository,
    private readonly work: TransactionRunner,
    private readonly administration: AdminCheck,
    private readonly audit: AuditService,
    private readonly feed: ChangeFeed,
    private readonly environment: Environment,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
  ) {}

  async read(id: string): Promise<UserWithEtag> {
    const user = await this.users.findReadOnly(id);
    if (!user) throw problem('NOT_FOUND');
    return withEtag(user);
  }

  /** The fields that users may change about themselves. */
  update(by: Actor, id: string, update: UserUpdate, ifMatch?: string): Promise<UserWithEtag> {
    return this.change(by, id, ifMatch, 'user.updated', (user) => {
      if (update.name !== undefined) user.name = update.name;
      if (update.image !== undefined) user.image = update.image;
    });
  }

  changeRole(by: Actor, id: string, roles: string[], ifMatch?: string): Promise<UserWithEtag> {
    const unknown = roles.filter((role) => !this.environment.ROLES.includes(role));
    if (unknown.length > 0) {
      const message = `role must be one of ${this.environment.ROLES.join(', ')}`;
      throw problem('VALIDATION_ERROR', { errors: [{ field: 'role', message }] });
    }
    return this.change(by, id, ifMatch, 'user.role_changed', async (user, em) => {
      const wasAdmin = this.isAdmin(user);
      user.role = roles.join(',');
      if (!wasAdmin || this.isAdmin(user)) return [];
      if (user.id === by.principal.user.id) throw problem('SELF_DEMOTION');
      await this.assertAnotherAdmin(em, user);
      return this.hasSessions ? sessionsOf(em).revokeImpersonationsBy(user.id) : [];
    });
  }

  /** Sets the ban and ends every session: Better-Auth itself looks at a ban only when a session begins. */
  ban(by: Actor, id: string, ban: BanRequest, ifMatch?: string): Promise<UserWithEtag> {
    const banExpires = ban.expiresAt == null ? null : new Date(ban.expiresAt);
    if (banExpires && banExpires <= new Date()) {
      const message = 'expiresAt must be in the future';
      throw problem('VALIDATION_ERROR', { errors: [{ field: 'expiresAt', message }] });
    }
    return this.change(by, id, ifMatch, 'user.banned', async (user, em) => {
      // By the row: a uuid can be written in several ways.
      if (user.id === by.principal.user.id) throw problem('SELF_BAN');
      if (this.isAdmin(user)) await this.assertAnotherAdmin(em, user);
      Object.assign(user, { banned: true, banReason: ban.reason ?? null, banExpires });
      return this.hasSessions ? sessionsOf(em).revokeAll(user.id) : [];
    });
  }

  unban(by: Actor, id: string, ifMatch?: string): Promise<UserWithEtag> {
    return this.change(by, id, ifMatch, 'user.unbanned', (user) => {
      Object.assign(user, { banned: false, banReason: null, banExpires: null });
    });
  }

  private async change(
    by: Actor,
    id: string,
    ifMatch: string | undefined,
    action: AuditAction,
    apply: (user: User, em: EntityManager) => Applied | Promise<Applied>,
  ): Promise<UserWithEtag> {
    const self = by.principal.user.id;
    // Roles and bans are for admins, also where the target is the caller.
    const isFree = (userId: string | undefined) => action === 'user.updated' && userId === self;
    const { changed, ended } = await this.work.run(async (em) => {
      if (!isFree(id)) await this.administration.lock(em);
      const user = await usersOf(em).findForUpdate(id);
      // By the row: a uuid can be written in several ways.
      if (!isFree(user?.id)) await this.administration.requireAdmin(em, by);
      if (!user) throw problem('NOT_FOUND');
      requireMatch(ifMatch, withEtag(user).etag);

      const before = snapshot(user);
      const ended = (await apply(user, em)) ?? [];
      const after = snapshot(user);
      const changed = Object.keys(after).filter((key) => !same(before[key], after[key]));
      // Said again, a ban ends the sessions that began meanwhile; otherwise nothing has happened.
      if (changed.length === 0 && action !== 'user.banned')
        return { changed: withEtag(user), ended };

      user.updatedAt = new Date();
      this.audit.record(em, by, {
        action,
        targetUserId: user.id,
        before: pick(before, changed),
        after: { ...pick(after, changed), ...countImpersonations(user.id, ended) },
        reason: (action === 'user.banned' && user.banReason) || null,
      });
      return { changed: withEtag(user), ended };
    });
    for (const userId of new Set([changed.user.id, ...ended.map((session) => session.userId)])) {
      this.feed.notifyUserChanged(userId);
    }
    return changed;
  }

  /** Better-Auth may keep them elsewhere (`SESSION_BINDING=token-only`). */
  private get hasSessions(): boolean {
    return this.physical.tables.session !== undefined;
  }

  private async assertAnotherAdmin(em: EntityManager, user: User): Promise<void> {
    const { ADMIN_ROLES, ADMIN_USER_IDS } = this.environment;
    const holders = await usersOf(em).findByRoles(ADMIN_ROLES, ADMIN_USER_IDS);
    const now = new Date();
    const others = holders.filter(
      (other) => other.id !== user.id && this.isAdmin(other) && !isBanned(other, now),
    );
    if (others.length === 0) throw problem('LAST_ADMIN');
  }

  private isAdmin(user: User): boolean {
    return isAdmin(user, this.environment);
  }
}

/** The sessions that a change ended, if any. */
type Applied = RevokedSession[] | void;

function usersOf(em: EntityManager): UsersRepository {
  return em.getRepository(User);
}

function sessionsOf(em: EntityManager): SessionsRepository {
  return em.getRepository(Session);
}

function withEtag(user: User): UserWithEtag {
  const read = UserRead.of(user, new Date());
  return { user: read, etag: etagOf(read) };
}

function snapshot({ name, image, role, banned, banReason, banExpires }: User) {
  return { name, image, role, banned, banReason, banExpires } as Record<string, unknown>;
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function pick(values: Record<string, unknown>, keys: string[]): Record<string, unknown> {
  return Object.fromEntries(keys.map((key) => [key, values[key]]));
}
