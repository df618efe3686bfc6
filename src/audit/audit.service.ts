import { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { Metrics } from '../metrics/metrics.js';
import { uuidV7 } from './uuid-v7.js';
import { AUDIT_ACTIONS, type AuditAction, AuditEvent } from './audit-event.entity.js';

export interface Change {
  action: AuditAction;
  targetUserId: string;
  before?: Record<string, unknown>;
  after?: Record<string, unknown>;
  reason?: string | null;
}

@Injectable()
export class AuditService {
  /** The number of commits of each action, for the metrics. */
  private readonly committed = new Map<AuditAction, number>(
    AUDIT_ACTIONS.map((action) => [action, 0]),
  );
  private readonly recorded = new WeakMap<EntityManager, AuditAction[]>();

  constructor(em: EntityManager, metrics: Metrics) {
    metrics.counter({
      name: 'gatehouse_admin_actions_total',
      help: 'Committed changes by admins and users, by the action of their audit event.',
      labels: ['action'],
      read: () => [...this.committed].map(([action, value]) => ({ labels: { action }, value })),
    });
    // A transaction can fail after it recorded an event, and then runs again.
    em.getEventManager().registerSubscriber({
      afterTransactionCommit: (transaction) => this.countCommitted(transaction.em),
    });
  }

  /** Records a change in the transaction of that change, so that both commit or neither does. */
  record(em: EntityManager, actor: Actor, change: Change): void {
    em.create(AuditEvent, eventOf(actor, change), { persist: true });
    this.noteRecorded(em, [change]);
  }

  /** Records many changes in their transaction, without an entity for each. */
  async recordAll(em: EntityManager, actor: Actor, changes: Change[]): Promise<void> {
    for (let start = 0; start < changes.length; start += MAX_EVENTS_PER_STATEMENT) {
      const some = changes.slice(start, start + MAX_EVENTS_PER_STATEMENT);
      const events = some.map((change) => eventOf(actor, change));
      await em.insertMany(AuditEvent, events);
    }
    this.noteRecorded(em, changes);
  }

  private noteRecorded(em: EntityManager, changes: Change[]): void {
    const actions = changes.map(({ action }) => action);
    this.recorded.set(em, [...(this.recorded.get(em) ?? []), ...actions]);
  }

  private countCommitted(em: object): void {
    const actions = this.recorded.get(em as EntityManager) ?? [];
    for (const action of actions) this.committed.set(action, (this.committed.get(action) ?? 0) + 1);
  }
}

/** While the process builds a long statement, other requests wait. */
const MAX_EVENTS_PER_STATEMENT = 100;

function eventOf(actor: Actor, change: Change) {
  const now = new Date();
  return {
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
  };
}
