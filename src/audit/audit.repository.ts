import { EntityRepository } from '@mikro-orm/postgresql';
import type { AuditAction, AuditEvent } from './audit-event.entity.js';

export interface AuditFilter {
  action?: AuditAction | undefined;
  actorId?: string | undefined;
  targetUserId?: string | undefined;
  from?: Date | undefined;
  to?: Date | undefined;
}

/** A row of plain values instead of an entity, because an export reads millions of them. */
export interface AuditRow {
  id: string;
  at: Date;
  action: AuditAction;
  actorId: string;
  impersonatorId: string | null;
  targetUserId: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  reason: string | null;
  requestId: string;
  clientRequestId: string | null;
  ip: string | null;
  userAgent: string | null;
}

/** A batch of events as JSON lines, and the id where the next batch starts, or null at the end. */
export interface AuditLines {
  text: string;
  next: string | null;
}

export class AuditRepository extends EntityRepository<AuditEvent> {
  /** Finds events newest first, starting after an id. The ids sort by time, so they are cursors. */
  async findBefore(
    filter: AuditFilter,
    beforeId: string | null,
    limit: number,
  ): Promise<AuditRow[]> {
    const { sql, parameters } = pageQuery(filter, beforeId, limit);
    const rows = await this.execute<Omit<AuditRow, 'at'> & { at: number }>(
      `select id, (extract(epoch from at) * 1000)::float8 as at, action, actor_id as "actorId",
        impersonator_id as "impersonatorId", target_user_id as "targetUserId", before, after, reason,
        request_id as "requestId", client_request_id as "clientRequestId", ip, user_agent as "userAgent" from (${sql}) page order by id desc`,
      parameters,
    );
    return rows.map((row) => ({ ...row, at: new Date(row.at) }));
  }

  /**
   * Finds the same events as JSON lines. PostgreSQL writes them. A million events as objects would
   * create so much garbage that the process grows by half and other requests wait.
   */
  async findLinesBefore(
    filter: AuditFilter,
    beforeId: string | null,
    limit: number,
  ): Promise<AuditLines> {
    const { sql, parameters } = pageQuery(filter, beforeId, limit);
    const [row] = await this.execute<{ text: string | null; count: number; last: string }>(
      `select string_agg(${LINE} || chr(10), '' order by id desc) as text, count(*)::int as count,
        min(id::text collate "C") as last from (${sql}) page`,
      parameters,
    );
    return { text: row?.text ?? '', next: row?.count === limit ? row.last : null };
  }

  private execute<Row extends object>(sql: string, parameters: unknown[]): Promise<Row[]> {
    return this.getEntityManager().getConnection().execute<Row[]>(sql, parameters);
  }
}

function pageQuery(filter: AuditFilter, beforeId: string | null, limit: number) {
  const conditions: [string, unknown][] = [
    ['action = ?', filter.action],
    ['actor_id = ?', filter.actorId],
    ['target_user_id = ?', filter.targetUserId],
    ['at >= ?::timestamptz', filter.from?.toISOString()],
    ['at <= ?::timestamptz', filter.to?.toISOString()],
    ['id < ?::uuid', beforeId ?? undefined],
  ];
  const active = conditions.filter(([, value]) => value !== undefined);
  const where = active.map(([condition]) => condition).join(' and ') || 'true';
  return {
    sql: `select * from gatehouse.audit_event where ${where} order by id desc limit ?`,
    parameters: [...active.map(([, value]) => value), limit],
  };
}

/** `AuditEventRead` of `audit.dto.ts` in SQL. */
const LINE = `json_build_object(
  'id', id, 'at', to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'action', action,
  'actorId', actor_id, 'impersonatorId', impersonator_id, 'targetUserId', target_user_id,
  'before', before, 'after', after, 'reason', reason, 'requestId', request_id,
  'clientRequestId', client_request_id, 'ip', ip, 'userAgent', user_agent)::text`;
