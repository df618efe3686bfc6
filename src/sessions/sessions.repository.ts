import { EntityRepository } from '@mikro-orm/postgresql';
import { mappedOnly } from '../database/bounded-text.js';
import type { Session } from './session.entity.js';

export class SessionsRepository extends EntityRepository<Session> {
  /** The newest, and how many there are. To be read, not changed. */
  newestOf(userId: string, now: Date, most: number): Promise<[Session[], number]> {
    return this.getEntityManager()
      .fork()
      .findAndCount(
        this.entityName,
        { user: userId, expiresAt: { $gt: now } },
        { ...mappedOnly(this), orderBy: { createdAt: 'desc', id: 'desc' }, limit: most },
      );
  }

  /** When the last of them ends; null where there is none. */
  async lastEndOf(userId: string, now: Date): Promise<Date | null> {
    const [last] = await this.find(
      { user: userId, expiresAt: { $gt: now } },
      { ...mappedOnly(this), orderBy: { expiresAt: 'desc' }, limit: 1, disableIdentityMap: true },
    );
    return last?.expiresAt ?? null;
  }

  /** How many rows went. */
  endAllOf(userId: string, exceptId?: string): Promise<number> {
    return this.nativeDelete({
      user: userId,
      ...(exceptId === undefined ? {} : { id: { $ne: exceptId } }),
    });
  }

  endOne(userId: string, sessionId: string): Promise<number> {
    return this.nativeDelete({ user: userId, id: sessionId });
  }
}
