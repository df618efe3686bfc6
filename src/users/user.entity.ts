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
    image: p.text().nullable(),
    createdAt: p.datetime(),
    updatedAt: p.datetime(),
    role: p.text().nullable(),
    banned: p.boolean().nullable(),
    banReason: p.text().nullable(),
    banExpires: p.datetime().nullable(),
  },
});

export class User extends UserSchema.class {}
UserSchema.setClass(User);
