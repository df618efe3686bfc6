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
  /** Records a change in the transaction of that change, so that both commit or neither does. */
  record(em: EntityManager, actor: Actor, change: Change): void {
    const now = new Date();
    em.create(
      AuditEvent,
      {
        id: uuidV7(now),
        at: now,
        action: change.action,
        actorId: actor.principal.user.id,
        impersonatorId: actor.principal.impersonatedBy,
        targetUserId: change.targetUserId,
        before: change.before ?? null,
        after: change.after ?? null,
        reason: change.reason ?? null,
        requestId: actor.requestId,
        clientRequestId: actor.clientRequestId,
        ip: actor.ip,
        userAgent: actor.userAgent,
      },
      { persist: true },
    );
  }
}
