import { EntityRepository } from '@mikro-orm/postgresql';
import type { Session } from './session.entity.js';

export class SessionsRepository extends EntityRepository<Session> {
  /** Newest first. To be read, not changed. */
  liveOf(userId: string, now: Date): Promise<Session[]> {
    return this.find(
      { user: userId, expiresAt: { $gt: now } },
      { orderBy: { createdAt: 'desc', id: 'desc' }, disableIdentityMap: true },
    );
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
