import { EntityRepository } from '@mikro-orm/postgresql';
import type { User } from './user.entity.js';

export class UsersRepository extends EntityRepository<User> {
  async has(id: string): Promise<boolean> {
    return (await this.findOne({ id }, { fields: ['id'], disableIdentityMap: true })) !== null;
  }
}
