import { Injectable } from '@nestjs/common';
import type { Principal } from '../access/principal.js';
import { requireIpRange } from '../validation/ip-range.js';
import { readList } from '../validation/list-page.js';
import { readTimes } from '../validation/time-range.js';
import type { SessionFilter } from './session-filter.dto.js';
import { type SessionPage, type SessionQuery, SessionWithUser } from './session-list.dto.js';
import { type SessionConditions, SessionListRepository } from './session-list.repository.js';

@Injectable()
export class SessionListService {
  constructor(private readonly sessions: SessionListRepository) {}

  /** Returns one page of the sessions of all users that match a query. */
  async list({ session }: Principal, query: SessionQuery): Promise<SessionPage> {
    const conditions = readConditions(query);
    const { rows, pagination } = await readList(query, {
      findPage: async (request) => ({ rows: await this.sessions.findPage(conditions, request) }),
      count: (max) => this.sessions.count(conditions, max),
      estimate: () => this.sessions.estimate(conditions),
    });
    const items = rows.map((row) => SessionWithUser.from(row, session?.id ?? null));
    return { items, pagination };
  }
}

/** The conditions of a validated filter, at this moment. */
export function readConditions(filter: SessionFilter): SessionConditions {
  const { userId, ip, impersonated, state } = filter;
  return {
    ...readTimes(filter),
    userId,
    ip: ip === undefined ? undefined : requireIpRange(ip),
    impersonated,
    state,
    now: new Date(),
  };
}
