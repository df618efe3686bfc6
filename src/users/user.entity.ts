import { defineEntity, p } from '@mikro-orm/core';
import { OpaqueId } from '../database/opaque-id.js';
import { UsersRepository } from './users.repository.js';

const UserSchema = defineEntity({
  name: 'User',
  tableName: 'user',
  repository: () => UsersRepository,
  properties: {
    id: p.type(OpaqueId).primary(),
    name: p.text(),
    email: p.text(),
    emailVerified: p.boolean(),
    image: p.text().nullable().strictNullable(),
    createdAt: p.datetime(),
    updatedAt: p.datetime(),
    role: p.text().nullable().strictNullable(),
    banned: p.boolean().nullable().strictNullable(),
    banReason: p.text().nullable().strictNullable(),
    banExpires: p.datetime().nullable().strictNullable(),
  },
});

export class User extends UserSchema.class {}
UserSchema.setClass(User);
