import { Injectable } from '@nestjs/common';
import { invalidField } from '../validation/invalid-field.js';
import {
  type FoundPage,
  isCountable,
  type PageRequest,
  readList,
} from '../validation/list-page.js';
import { readTimes } from '../validation/time-range.js';
import type { UserFilter } from './user-filter.js';
import { ListedUser, type UserList, type UserQuery, type UserSort } from './user-list.dto.js';
import { type FoundUser, UserListRepository } from './user-list.repository.js';
import { UserSessionsRepository } from './user-sessions.repository.js';

/** A search that matches more users than this reads them in the order of the list. */
const MAX_MATCHES_READ = 20_000;

@Injectable()
export class UserListService {
  constructor(
    private readonly users: UserListRepository,
    private readonly sessions: UserSessionsRepository,
  ) {}

  /** Returns one page of the users that match a query. */
  async list(query: UserQuery): Promise<UserList> {
    const filter = await this.readFilter(query);
    const { rows, pagination } = await readList(query, {
      findPage: (request) => this.findPage(filter, query.total, request),
      count: (max) => this.users.count(filter, max),
      estimate: () => this.users.estimate(filter),
    });
    const now = new Date();
    const ids = rows.map(({ id }) => id);
    const summaries =
      query.include === 'sessions' ? await this.sessions.summarize(ids, now) : undefined;
    return { items: rows.map(({ user }) => ListedUser.from(user, now, summaries)), pagination };
  }

  private async readFilter(query: UserQuery): Promise<UserFilter> {
    const { role, banned, emailVerified, q, signedInBefore } = query;
    if (signedInBefore !== undefined && !this.sessions.areStored) {
      throw invalidField('signedInBefore', 'this database stores no sessions');
    }
    return {
      ...readTimes(query),
      banned,
      emailVerified,
      q,
      signedInBefore: signedInBefore === undefined ? undefined : new Date(signedInBefore),
      role: role === undefined ? undefined : await this.users.findRoleTexts(role),
    };
  }

  /** A search with few matches reads all of them, so it also shows the total. */
  private async findPage(
    filter: UserFilter,
    mode: UserQuery['total'],
    request: PageRequest<UserSort>,
  ): Promise<FoundPage<FoundUser>> {
    if (filter.q === undefined || mode === 'none') {
      return { rows: await this.users.findPage(filter, request) };
    }
    const estimate = await this.users.estimate(filter);
    if (!isCountable(estimate)) {
      const rows = await this.users.findPage(filter, request);
      return { rows, total: { rows: estimate.rows, isExact: false } };
    }
    const few = await this.users.findPageOfFew(filter, request, MAX_MATCHES_READ);
    if (few) return { rows: few.rows, total: { rows: few.total, isExact: true } };
    // The statistics can be wrong about a text, and the next query must not rely on them again.
    const rows = await this.users.findPage({ ...filter, isFrequent: true }, request);
    return { rows, total: { rows: MAX_MATCHES_READ + 1, isExact: false } };
  }
}
