import {
  ApiExtraModels,
  ApiProperty,
  ApiPropertyOptional,
  getSchemaPath,
  IntersectionType,
} from '@nestjs/swagger';
import { IsIn, IsOptional } from 'class-validator';
import { CursorPagination, CursorQuery } from '../validation/pagination.dto.js';
import type { UserReference } from '../better-auth/user-reference.js';
import { EXAMPLE_USER_ID } from '../openapi/parameters.js';
import { PlainText } from '../validation/plain-text.js';
import { PointInTime } from '../validation/iso-date-time.js';
import { AUDIT_ACTIONS, type AuditAction, type AuditEvent } from './audit-event.entity.js';

/** All filters must match. */
class AuditFilterQuery {
  @ApiPropertyOptional({ enum: AUDIT_ACTIONS, description: 'The action', example: 'user.banned' })
  @IsOptional()
  @IsIn(AUDIT_ACTIONS)
  action?: AuditAction;

  @ApiPropertyOptional({
    description: 'The id of the user who made the change',
    example: EXAMPLE_USER_ID,
    maxLength: 255,
  })
  @IsOptional()
  @PlainText(1, 255)
  actorId?: string;

  @ApiPropertyOptional({
    description: 'The id of the user who was changed',
    example: EXAMPLE_USER_ID,
    maxLength: 255,
  })
  @IsOptional()
  @PlainText(1, 255)
  targetUserId?: string;

  @ApiPropertyOptional({
    format: 'date-time',
    description: 'Only events at or after this time',
    example: '2026-01-01T00:00:00Z',
    maxLength: 40,
  })
  @IsOptional()
  @PointInTime()
  from?: string;

  @ApiPropertyOptional({
    format: 'date-time',
    description: 'Only events at or before this time',
    example: '2026-12-31T23:59:59Z',
    maxLength: 40,
  })
  @IsOptional()
  @PointInTime()
  to?: string;
}

export class AuditQuery extends IntersectionType(AuditFilterQuery, CursorQuery) {}

/** The current data of a user in an event. */
export class AuditUser {
  @ApiProperty({ example: EXAMPLE_USER_ID })
  id: string;

  @ApiProperty({ example: 'Ada Lovelace' })
  name: string;

  @ApiProperty({ example: 'ada@example.com' })
  email: string;
}

/** A user of an event. Null after the user was deleted. */
function ApiAuditUser(description: string) {
  return ApiProperty({
    description: `${description} Null if the user has been deleted.`,
    anyOf: [{ $ref: getSchemaPath(AuditUser) }, { type: 'null' }],
  });
}

@ApiExtraModels(AuditUser)
export class AuditEventRead {
  @ApiProperty({ format: 'uuid' })
  id: string;

  @ApiProperty({ type: String, format: 'date-time' })
  at: string;

  @ApiProperty({ enum: AUDIT_ACTIONS })
  action: AuditAction;

  @ApiProperty({ description: 'The user who made the change' })
  actorId: string;

  @ApiAuditUser('The name and e-mail address of the actor now.')
  actor: AuditUser | null;

  @ApiProperty({
    type: String,
    nullable: true,
    description: 'The admin who impersonated the actor',
  })
  impersonatorId: string | null;

  @ApiAuditUser('The name and e-mail address of the impersonating admin now.')
  impersonator: AuditUser | null;

  @ApiProperty({ description: 'The user who was changed' })
  targetUserId: string;

  @ApiAuditUser('The name and e-mail address of the changed user now.')
  target: AuditUser | null;

  @ApiProperty({
    type: Object,
    nullable: true,
    additionalProperties: true,
    description: 'The changed values before the change',
  })
  before: Record<string, unknown> | null;

  @ApiProperty({
    type: Object,
    nullable: true,
    additionalProperties: true,
    description: 'The changed values after the change',
  })
  after: Record<string, unknown> | null;

  @ApiProperty({ type: String, nullable: true })
  reason: string | null;

  @ApiProperty({ description: 'The unique request id from the server' })
  requestId: string;

  @ApiProperty({
    type: String,
    nullable: true,
    description: 'The `X-Request-Id` from the client',
  })
  clientRequestId: string | null;

  @ApiProperty({ type: String, nullable: true })
  ip: string | null;

  @ApiProperty({ type: String, nullable: true })
  userAgent: string | null;

  static of(event: AuditEvent, users: ReadonlyMap<string, UserReference>): AuditEventRead {
    return {
      id: event.id,
      at: event.at.toISOString(),
      action: event.action,
      actorId: event.actorId,
      actor: users.get(event.actorId) ?? null,
      impersonatorId: event.impersonatorId,
      impersonator: users.get(event.impersonatorId ?? '') ?? null,
      targetUserId: event.targetUserId,
      target: users.get(event.targetUserId) ?? null,
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
