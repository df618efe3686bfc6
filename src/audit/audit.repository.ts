import { EntityRepository } from '@mikro-orm/postgresql';
import type { AuditAction, AuditEvent } from './audit-event.entity.js';

export interface AuditFilter {
  action?: AuditAction | undefined;
  actorId?: string | undefined;
  targetUserId?: string | undefined;
  from?: Date | undefined;
  to?: Date | undefined;
}

export class AuditRepository extends EntityRepository<AuditEvent> {
  /** Newest first, from behind an id on: the ids sort by time, so that they are the place in the list. */
  before(filter: AuditFilter, beforeId: string | null, limit: number): Promise<AuditEvent[]> {
    const { action, actorId, targetUserId, from, to } = filter;
    return this.find(
      {
        ...(action === undefined ? {} : { action }),
        ...(actorId === undefined ? {} : { actorId }),
        ...(targetUserId === undefined ? {} : { targetUserId }),
        $and: [
          ...(from === undefined ? [] : [{ at: { $gte: from } }]),
          ...(to === undefined ? [] : [{ at: { $lte: to } }]),
          ...(beforeId === null ? [] : [{ id: { $lt: beforeId } }]),
        ],
      },
      { orderBy: { id: 'desc' }, limit, disableIdentityMap: true },
    );
  }
}
