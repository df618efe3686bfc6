import { EntityRepository } from '@mikro-orm/postgresql';
import { mappedOnly } from '../database/bounded-text.js';
import type { Account } from './account.entity.js';

export class AccountsRepository extends EntityRepository<Account> {
  /** Oldest first. Read-only: MikroORM does not track these entities. */
  findByUser(userId: string, provider: string | undefined): Promise<Account[]> {
    return this.find(
      { user: userId, ...(provider === undefined ? {} : { providerId: provider }) },
      { ...mappedOnly(this), orderBy: { createdAt: 'asc', id: 'asc' }, disableIdentityMap: true },
    );
  }
}
