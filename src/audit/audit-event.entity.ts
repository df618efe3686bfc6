import { defineEntity, p } from '@mikro-orm/core';
import { AuditRepository } from './audit.repository.js';

export const AUDIT_ACTIONS = [
  'user.updated',
  'user.role_changed',
  'user.banned',
  'user.unbanned',
  'session.revoked',
  'session.revoked_all',
  'session.revoked_by_filter',
] as const;

export type AuditAction = (typeof AUDIT_ACTIONS)[number];

const AuditEventSchema = defineEntity({
  name: 'AuditEvent',
  schema: 'gatehouse',
  tableName: 'audit_event',
  repository: () => AuditRepository,
  properties: {
    id: p.uuid().primary(),
    at: p.datetime(),
    action: p.text().$type<AuditAction>(),
    actorId: p.text(),
    impersonatorId: p.text().nullable().strictNullable(),
    targetUserId: p.text(),
    before: p.json<Record<string, unknown>>().nullable().strictNullable(),
    after: p.json<Record<string, unknown>>().nullable().strictNullable(),
    reason: p.text().nullable().strictNullable(),
    requestId: p.text(),
    clientRequestId: p.text().nullable().strictNullable(),
    ip: p.text().nullable().strictNullable(),
    userAgent: p.text().nullable().strictNullable(),
  },
});

export class AuditEvent extends AuditEventSchema.class {}
AuditEventSchema.setClass(AuditEvent);
