import { defineEntity, p } from '@mikro-orm/core';
import { BoundedText, MAX_CHARACTERS } from '../database/bounded-text.js';
import { OpaqueId } from '../database/opaque-id.js';
import { UsersRepository } from './users.repository.js';

const UserSchema = defineEntity({
  name: 'User',
  tableName: 'user',
  repository: () => UsersRepository,
  properties: {
    id: p.type(OpaqueId).primary(),
    name: p.type(new BoundedText(MAX_CHARACTERS.name)),
    email: p.type(new BoundedText(MAX_CHARACTERS.email)),
    emailVerified: p.boolean(),
    image: p.type(new BoundedText(MAX_CHARACTERS.image)).nullable().strictNullable(),
    createdAt: p.datetime(),
    updatedAt: p.datetime(),
    role: p.text().nullable().strictNullable(),
    banned: p.boolean().nullable().strictNullable(),
    banReason: p.type(new BoundedText(MAX_CHARACTERS.banReason)).nullable().strictNullable(),
    banExpires: p.datetime().nullable().strictNullable(),
  },
});

export class User extends UserSchema.class {}
UserSchema.setClass(User);
