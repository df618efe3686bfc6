import { Injectable } from '@nestjs/common';
import type { Actor } from '../access/actor.js';
import { UsersRepository } from '../better-auth/users.repository.js';
import { problem } from '../problems/problem.js';
import { snapshotOf, UserChangeService } from './user-change.service.js';
import { type UserWithEtag, withEtag } from './user-etag.js';
import type { UserUpdate } from './user-update.dto.js';

@Injectable()
export class UsersService {
  constructor(
    private readonly users: UsersRepository,
    private readonly changes: UserChangeService,
  ) {}

  /** Returns one user. */
  async read(id: string): Promise<UserWithEtag> {
    const user = await this.users.findReadOnly(id);
    if (!user) throw problem('USER_NOT_FOUND');
    return withEtag(user);
  }

  /** Changes the fields that users can change about themselves. */
  update(
    actor: Actor,
    id: string,
    { name, image }: UserUpdate,
    ifMatch?: string,
  ): Promise<UserWithEtag> {
    return this.changes.run(async (em) => {
      const user = await this.changes.lockAsSelfOrAdmin(
        em,
        actor,
        id,
        { user: ['update'] },
        ifMatch,
      );
      const before = snapshotOf(user);
      if (name !== undefined) user.name = name;
      if (image !== undefined) user.image = image;
      return this.changes.record(em, actor, user, before, { action: 'user.updated' });
    });
  }
}
