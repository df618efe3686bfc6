import { defineEntity, p } from '@mikro-orm/core';
import { BoundedText, MAX_CHARACTERS } from '../database/bounded-text.js';
import { OpaqueId } from '../database/opaque-id.js';
import { User } from './user.entity.js';
import { SessionsRepository } from './sessions.repository.js';

/**
 * `token` is the bearer credential in plain text. It is not mapped, so that no code can leak it.
 */
const SessionSchema = defineEntity({
  name: 'Session',
  tableName: 'session',
  repository: () => SessionsRepository,
  properties: {
    id: p.type(OpaqueId).primary(),
    user: () => p.manyToOne(User).fieldName('userId'),
    expiresAt: p.datetime(),
    createdAt: p.datetime(),
    updatedAt: p.datetime(),
    ipAddress: p.type(new BoundedText(MAX_CHARACTERS.ipAddress)).nullable().strictNullable(),
    userAgent: p.type(new BoundedText(MAX_CHARACTERS.userAgent)).nullable().strictNullable(),
    // Always text, even if ids have another type.
    impersonatedBy: p.text().nullable().strictNullable(),
  },
});

export class Session extends SessionSchema.class {}
SessionSchema.setClass(Session);
