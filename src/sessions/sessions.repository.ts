import { EntityRepository } from '@mikro-orm/postgresql';
import type { Session } from './session.entity.js';

export class SessionsRepository extends EntityRepository<Session> {}
