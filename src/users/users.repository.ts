import { EntityRepository } from '@mikro-orm/postgresql';
import type { User } from './user.entity.js';

export class UsersRepository extends EntityRepository<User> {}
