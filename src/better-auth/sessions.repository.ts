import type { EntityDictionary } from '@mikro-orm/core';
import { EntityRepository, type QBFilterQuery } from '@mikro-orm/postgresql';
import { mappedOnly } from '../database/bounded-text.js';
import type { RevokedSession } from './revoked-session.js';
import type { Session } from './session.entity.js';

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

  async isActive(sessionId: string, now: Date): Promise<boolean> {
    return (await this.count({ id: sessionId, expiresAt: { $gt: now } })) > 0;
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

  revoke(userId: string, sessionId: string): Promise<RevokedSession[]> {
    return this.deleteReturning({ user: userId, id: sessionId });
  }

  /** MikroORM's query builder omits `returning` from a DELETE, so this uses the native query. */
  private async deleteReturning(where: QBFilterQuery<Session>): Promise<RevokedSession[]> {
    const em = this.getEntityManager();
    const meta = em.getMetadata().get<Session>(this.entityName);
    const { id, user, expiresAt } = meta.properties;
    const query = this.createQueryBuilder().delete(where).getNativeQuery();
    query.returning([id, user, expiresAt].flatMap(({ fieldNames }) => fieldNames));
    const rows = await em.execute<EntityDictionary<Session>[]>(query);
    return rows.map((row) => {
      const revoked = em.getDriver().mapResult<Session>(row, meta) as RevokedRow;
      const { id, user, expiresAt } = revoked;
      return { id: String(id), userId: String(user), expiresAt: new Date(expiresAt) };
    });
  }
}

interface RevokedRow {
  id: string | number;
  user: string | number;
  expiresAt: Date | string;
}
