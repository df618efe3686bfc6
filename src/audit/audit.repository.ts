import { raw } from '@mikro-orm/core';
import { EntityRepository } from '@mikro-orm/postgresql';
import { userReferenceSql } from '../better-auth/user-reference.js';
import type { AuditAction, AuditEvent } from './audit-event.entity.js';

export interface AuditFilter {
  action?: AuditAction | undefined;
  actorId?: string | undefined;
  targetUserId?: string | undefined;
  from?: Date | undefined;
  to?: Date | undefined;
}

/** A batch of events as JSON lines, and the id where the next batch starts, or null at the end. */
export interface AuditLines {
  text: string;
  next: string | null;
}

export class AuditRepository extends EntityRepository<AuditEvent> {
  /** Finds events newest first, starting after an id. The ids sort by time, so they are cursors. */
  findBefore(filter: AuditFilter, beforeId: string | null, limit: number): Promise<AuditEvent[]> {
    const where = conditionsOf(filter, beforeId);
    return this.find(where, { orderBy: { id: 'desc' }, limit, disableIdentityMap: true });
  }

  /**
   * Finds the same events as JSON lines, which PostgreSQL creates. A million events as objects
   * would create so much garbage that the process grows by half and other requests wait.
   */
  async findLinesBefore(
    filter: AuditFilter,
    beforeId: string | null,
    limit: number,
  ): Promise<AuditLines> {
    const where = conditionsOf(filter, beforeId);
    const page = this.createQueryBuilder('e').where(where).orderBy({ id: 'desc' }).limit(limit);
    const row = await this.getEntityManager()
      .createQueryBuilder(page, 'page')
      .select(raw(this.linesSql()))
      .execute<{ text: string | null; count: number; last: string } | undefined>('get');
    return { text: row?.text ?? '', next: row?.count === limit ? row.last : null };
  }

  /** The fields of `AuditEventRead` (`audit.dto.ts`) in SQL. */
  private linesSql(): string {
    const user = (id: string) => userReferenceSql(this.getEntityManager(), `page.${id}`);
    const line = `json_build_object(
      'id', id, 'at', to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
      'action', action, 'actorId', actor_id, 'actor', ${user('actor_id')},
      'impersonatorId', impersonator_id, 'impersonator', ${user('impersonator_id')},
      'targetUserId', target_user_id, 'target', ${user('target_user_id')},
      'before', before, 'after', after, 'reason', reason, 'requestId', request_id,
      'clientRequestId', client_request_id, 'ip', ip, 'userAgent', user_agent)::text`;
    return `string_agg(${line} || chr(10), '' order by id desc) as text, count(*)::int as count,
      min(id::text collate "C") as last`;
  }
}

function conditionsOf(
  { action, actorId, targetUserId, from, to }: AuditFilter,
  beforeId: string | null,
) {
  return {
    ...(action && { action }),
    ...(actorId && { actorId }),
    ...(targetUserId && { targetUserId }),
    at: { ...(from && { $gte: from }), ...(to && { $lte: to }) },
    ...(beforeId !== null && { id: { $lt: beforeId } }),
  };
}
