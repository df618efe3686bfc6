import type { EntityDictionary } from '@mikro-orm/core';
import { EntityRepository, type QBFilterQuery } from '@mikro-orm/postgresql';
import { mappedOnly } from '../database/bounded-text.js';
import type { RevokedSession } from './revoked-session.js';
import type { Session } from './session.entity.js';

/** Describes the session that makes a token valid. */
export interface WantedSession {
  id?: string;
  userId: string;
  impersonatedBy: string | null;
  maxCreatedAt?: Date;
}

export class SessionsRepository extends EntityRepository<Session> {
  /** The newest active sessions, and the number of all active ones. Read-only. */
  findActive(userId: string, now: Date, max: number): Promise<[Session[], number]> {
    return this.getEntityManager()
      .fork()
      .findAndCount(
        this.entityName,
        { user: userId, expiresAt: { $gt: now } },
        { ...mappedOnly(this), orderBy: { createdAt: 'desc', id: 'desc' }, limit: max },
      );
  }

  /** Whether an active session fits. The session may be one of those that this change deleted. */
  async hasActive(wanted: WantedSession, now: Date, revoked: RevokedSession[]): Promise<boolean> {
    const { id, userId, impersonatedBy, maxCreatedAt } = wanted;
    const isRevoked = revoked.some(
      (session) =>
        session.userId === userId &&
        session.impersonatedBy === impersonatedBy &&
        // PostgreSQL's `infinity` is an invalid date, which compares false.
        !(session.expiresAt <= now) &&
        (id === undefined || session.id === id) &&
        (maxCreatedAt === undefined || session.createdAt <= maxCreatedAt),
    );
    if (isRevoked) return true;
    const count = await this.count({
      user: userId,
      impersonatedBy,
      expiresAt: { $gt: now },
      ...(id === undefined ? {} : { id }),
      ...(maxCreatedAt === undefined ? {} : { createdAt: { $lte: maxCreatedAt } }),
    });
    return count > 0;
  }

  /** Deletes the sessions of a user, and those in which this user impersonates others. */
  revokeAll(userId: string, exceptId?: string): Promise<RevokedSession[]> {
    return this.deleteReturning({
      $or: [{ user: userId }, { impersonatedBy: userId }],
      ...(exceptId === undefined ? {} : { id: { $ne: exceptId } }),
    });
  }

  revokeImpersonationsBy(userId: string): Promise<RevokedSession[]> {
    return this.deleteReturning({ impersonatedBy: userId });
  }

  revokeMany(ids: string[]): Promise<RevokedSession[]> {
    return this.deleteReturning({ id: { $in: ids } });
  }

  revoke(userId: string, sessionId: string): Promise<RevokedSession[]> {
    return this.deleteReturning({ user: userId, id: sessionId });
  }

  /** MikroORM's query builder omits `returning` from a DELETE, so it is appended here. */
  private async deleteReturning(where: QBFilterQuery<Session>): Promise<RevokedSession[]> {
    const em = this.getEntityManager();
    const meta = em.getMetadata().get<Session>(this.entityName);
    const { id, user, createdAt, expiresAt, impersonatedBy } = meta.properties;
    const { sql, params } = this.createQueryBuilder().delete(where).toQuery();
    const returned = [id, user, createdAt, expiresAt, impersonatedBy]
      .flatMap(({ fieldNames }) => fieldNames)
      .map((name) => em.getPlatform().quoteIdentifier(name));
    const rows = await em.execute<EntityDictionary<Session>[]>(
      `${sql} returning ${returned.join(', ')}`,
      params,
    );
    return rows.map((row) => {
      const revoked = em.getDriver().mapResult<Session>(row, meta) as RevokedRow;
      return {
        id: String(revoked.id),
        userId: String(revoked.user),
        createdAt: new Date(revoked.createdAt),
        expiresAt: new Date(revoked.expiresAt),
        impersonatedBy: revoked.impersonatedBy,
      };
    });
  }
}

interface RevokedRow {
  id: string | number;
  user: string | number;
  createdAt: Date | string;
  expiresAt: Date | string;
  impersonatedBy: string | null;
}
