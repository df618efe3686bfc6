import { EntityRepository } from '@mikro-orm/postgresql';
import type { Account } from './account.entity.js';

export class AccountsRepository extends EntityRepository<Account> {}
