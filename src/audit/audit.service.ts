import type { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { uuidV7 } from './uuid-v7.js';
import { type AuditAction, AuditEvent } from './audit-event.entity.js';

export interface Change {
  action: AuditAction;
  targetUserId: string;
  before?: Record<string, unknown>;
  after?: Record<string, unknown>;
  reason?: string | null;
}

@Injectable()
export class AuditService {
  /** Writes down who changed what, in the transaction of the change: neither is ever there alone. */
  record(em: EntityManager, caller: Actor, change: Change): void {
    const now = new Date();
    em.create(
      AuditEvent,
      {
        id: uuidV7(now),
        at: now,
        action: change.action,
        actorId: caller.principal.user.id,
        impersonatorId: caller.principal.impersonatedBy,
        targetUserId: change.targetUserId,
        before: change.before ?? null,
        after: change.after ?? null,
        reason: change.reason ?? null,
        requestId: caller.requestId,
        clientRequestId: caller.clientRequestId,
        ip: caller.ip,
        userAgent: caller.userAgent,
      },
      { persist: true },
    );
  }
}
