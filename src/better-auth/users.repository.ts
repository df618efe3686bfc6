import { LockMode } from '@mikro-orm/core';
import { EntityRepository } from '@mikro-orm/postgresql';
import { mappedOnly } from '../database/bounded-text.js';
import type { User } from './user.entity.js';
import type { UserReference } from './user-reference.js';

export class UsersRepository extends EntityRepository<User> {
  async exists(id: string): Promise<boolean> {
    return (await this.findOne({ id }, { fields: ['id'], disableIdentityMap: true })) !== null;
  }

  /** Read-only: MikroORM does not track this entity. */
  findReadOnly(id: string): Promise<User | null> {
    return this.findOne({ id }, { ...mappedOnly(this), disableIdentityMap: true });
  }

  /** Reads the current row and locks it against changes until the transaction ends. Read-only. */
  findForShare(id: string): Promise<User | null> {
    const lockMode = LockMode.PESSIMISTIC_READ;
    return this.findOne({ id }, { ...mappedOnly(this), lockMode, disableIdentityMap: true });
  }

  /** As `findForShare`, in order of the ids, so that two changes do not deadlock. */
  findAllForShare(ids: string[]): Promise<User[]> {
    const lockMode = LockMode.PESSIMISTIC_READ;
    const options = { lockMode, disableIdentityMap: true, orderBy: { id: 'asc' } } as const;
    return this.find({ id: { $in: ids } }, { ...mappedOnly(this), ...options });
  }

  /** Reads the current row and locks it until the transaction ends. */
  async findForUpdate(id: string): Promise<User | null> {
    const options = { lockMode: LockMode.PESSIMISTIC_WRITE, refresh: true } as const;
    const user = await this.findOne({ id }, { ...mappedOnly(this), ...options });
    // PostgreSQL's `infinity` becomes an invalid date, which MikroORM cannot write back. Null also
    // means a ban without end.
    if (user?.banExpires && Number.isNaN(user.banExpires.getTime())) user.banExpires = null;
    return user;
  }

  /** The users with one of the ids, by id. Ids without a user are missing in the result. */
  async findReferences(ids: readonly string[]): Promise<Map<string, UserReference>> {
    const fields = ['id', 'name', 'email'] as const;
    const users = await this.find(
      { id: { $in: [...new Set(ids)] } },
      { fields, disableIdentityMap: true },
    );
    return new Map(users.map(({ id, name, email }) => [id, { id, name, email }]));
  }
}
