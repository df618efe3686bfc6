import { LockMode } from '@mikro-orm/core';
import { EntityRepository } from '@mikro-orm/postgresql';
import { mappedOnly } from '../database/bounded-text.js';
import { likePattern } from '../database/like-pattern.js';
import type { User } from './user.entity.js';

export class UsersRepository extends EntityRepository<User> {
  async exists(id: string): Promise<boolean> {
    return (await this.findOne({ id }, { fields: ['id'], disableIdentityMap: true })) !== null;
  }

  /** To be read, not changed. */
  findReadOnly(id: string): Promise<User | null> {
    return this.findOne({ id }, { ...mappedOnly(this), disableIdentityMap: true });
  }

  /** To be read, not changed: the row as it is now, which nobody changes until the transaction ends. */
  findForShare(id: string): Promise<User | null> {
    const lockMode = LockMode.PESSIMISTIC_READ;
    return this.findOne({ id }, { ...mappedOnly(this), lockMode, disableIdentityMap: true });
  }

  /** The row as it is now, and ours until the transaction ends. */
  async findForUpdate(id: string): Promise<User | null> {
    const options = { lockMode: LockMode.PESSIMISTIC_WRITE, refresh: true } as const;
    const user = await this.findOne({ id }, { ...mappedOnly(this), ...options });
    // PostgreSQL's `infinity` is no date here and could not be written back. Null, too, bans for ever.
    if (user?.banExpires && Number.isNaN(user.banExpires.getTime())) user.banExpires = null;
    return user;
  }

  /** Those who hold one of the roles or are named, banned or not. They are few. */
  async findByRoles(roles: readonly string[], ids: readonly string[]): Promise<User[]> {
    return this.find(
      {
        $or: [
          { id: { $in: [...ids] } },
          // Whoever has a role of the comma-joined list has it in the text; which of them do is decided there.
          ...roles.map((role) => ({ role: { $like: likePattern(role) } })),
        ],
      },
      mappedOnly(this),
    );
  }
}
