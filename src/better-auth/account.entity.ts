import { defineEntity, p } from '@mikro-orm/core';
import { BoundedText, MAX_CHARACTERS } from '../database/bounded-text.js';
import { OpaqueId } from '../database/opaque-id.js';
import { User } from './user.entity.js';
import { AccountsRepository } from './accounts.repository.js';

/** The password hash and the OAuth tokens are not mapped, because Gatehouse must not read them. */
const AccountSchema = defineEntity({
  name: 'Account',
  tableName: 'account',
  repository: () => AccountsRepository,
  properties: {
    id: p.type(OpaqueId).primary(),
    user: () => p.manyToOne(User).fieldName('userId'),
    accountId: p.type(new BoundedText(MAX_CHARACTERS.accountId)),
    providerId: p.text(),
    scope: p.type(new BoundedText(MAX_CHARACTERS.scope)).nullable(),
    createdAt: p.datetime(),
    updatedAt: p.datetime(),
  },
});

export class Account extends AccountSchema.class {}
AccountSchema.setClass(Account);
