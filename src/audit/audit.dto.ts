import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { IsIn, IsInt, IsOptional, Max, Min } from 'class-validator';
import { CursorPagination } from '../validation/pagination.dto.js';
import { PlainText } from '../validation/plain-text.js';
import { PointInTime } from '../validation/iso-date-time.js';
import { AUDIT_ACTIONS, type AuditAction } from './audit-event.entity.js';
import type { AuditRow } from './audit.repository.js';

/** Filters are combined with AND. Their examples are in `openapi-words.ts`. */
export class AuditQuery {
  @ApiPropertyOptional({ enum: AUDIT_ACTIONS })
  @IsOptional()
  @IsIn(AUDIT_ACTIONS)
  action?: AuditAction;

  @ApiPropertyOptional({ description: 'Who did it' })
  @IsOptional()
  @PlainText(1, 255)
  actorId?: string;

  @ApiPropertyOptional({ description: 'To whom' })
  @IsOptional()
  @PlainText(1, 255)
  targetUserId?: string;

  @ApiPropertyOptional({ format: 'date-time', description: 'Such as 2026-01-01T00:00:00Z' })
  @IsOptional()
  @PointInTime()
  from?: string;

  @ApiPropertyOptional({ format: 'date-time', description: 'Such as 2026-12-31T23:59:59Z' })
  @IsOptional()
  @PointInTime()
  to?: string;

  @ApiPropertyOptional({ type: 'integer', minimum: 1, maximum: 100, default: 20 })
  @IsOptional()
  @Transform(({ value }: { value: unknown }) =>
    /^\d{1,9}$/.test(String(value)) ? Number(value) : value,
  )
  @IsInt()
  @Min(1)
  @Max(100)
  limit: number = 20;

  @ApiPropertyOptional({ description: '`nextCursor` of the page before' })
  @IsOptional()
  @PlainText(1, 2048)
  cursor?: string;
}

export class AuditEventRead {
  @ApiProperty({ format: 'uuid' })
  id: string;

  @ApiProperty({ type: String, format: 'date-time' })
  at: string;

  @ApiProperty({ enum: AUDIT_ACTIONS })
  action: AuditAction;

  @ApiProperty({ description: 'Who did it' })
  actorId: string;

  @ApiProperty({ type: String, nullable: true, description: 'The admin who acted as the actor' })
  impersonatorId: string | null;

  @ApiProperty({ description: 'To whom' })
  targetUserId: string;

  @ApiProperty({
    type: Object,
    nullable: true,
    additionalProperties: true,
    description: 'What it was',
  })
  before: Record<string, unknown> | null;

  @ApiProperty({
    type: Object,
    nullable: true,
    additionalProperties: true,
    description: 'What it became',
  })
  after: Record<string, unknown> | null;

  @ApiProperty({ type: String, nullable: true })
  reason: string | null;

  @ApiProperty({ description: 'Made by the server, and unique' })
  requestId: string;

  @ApiProperty({
    type: String,
    nullable: true,
    description: 'The `X-Request-Id` that the client sent',
  })
  clientRequestId: string | null;

  @ApiProperty({ type: String, nullable: true })
  ip: string | null;

  @ApiProperty({ type: String, nullable: true })
  userAgent: string | null;

  static of(event: AuditRow): AuditEventRead {
    return {
      id: event.id,
      at: event.at.toISOString(),
      action: event.action,
      actorId: event.actorId,
      impersonatorId: event.impersonatorId,
      targetUserId: event.targetUserId,
      before: event.before,
      after: event.after,
      reason: event.reason,
      requestId: event.requestId,
      clientRequestId: event.clientRequestId,
      ip: event.ip,
      userAgent: event.userAgent,
    };
  }
}

export class AuditEventList {
  @ApiProperty({ type: [AuditEventRead] })
  items: AuditEventRead[];

  @ApiProperty({ type: CursorPagination })
  pagination: CursorPagination;
}
