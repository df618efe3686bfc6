import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsIn, IsOptional } from 'class-validator';
import type { SessionRow } from '../access/principal.js';
import { EXAMPLE_SESSION_ID } from '../openapi/parameters.js';
import { DeviceRead, deviceOf } from './device.js';

/** A session in the form for clients, without its token. */
export class SessionRead {
  @ApiProperty({ example: EXAMPLE_SESSION_ID })
  id: string;

  @ApiProperty()
  userId: string;

  @ApiProperty({ type: String, format: 'date-time' })
  createdAt: string;

  @ApiProperty({ type: String, format: 'date-time' })
  updatedAt: string;

  @ApiProperty({ type: String, format: 'date-time' })
  expiresAt: string;

  @ApiProperty({ type: String, nullable: true, description: 'As Better-Auth stored it' })
  ipAddress: string | null;

  @ApiProperty({ type: String, nullable: true })
  userAgent: string | null;

  @ApiProperty({ type: DeviceRead, description: 'Derived from the user agent' })
  device: DeviceRead;

  @ApiProperty({
    type: String,
    nullable: true,
    description:
      'The id of the admin who impersonates this user. Null unless you have `session:list`.',
  })
  impersonatedBy: string | null;

  @ApiProperty({ description: 'Whether the token of this request names this session' })
  current: boolean;

  /** Only callers with `session:list` see who impersonates a user, and from which device. */
  static of(session: SessionRow, currentId: string | null, isForAdmin: boolean): SessionRead {
    const isHidden = session.impersonatedBy !== null && !isForAdmin;
    const userAgent = isHidden ? null : session.userAgent;
    return {
      id: session.id,
      userId: session.userId,
      createdAt: session.createdAt.toISOString(),
      updatedAt: session.updatedAt.toISOString(),
      expiresAt: session.expiresAt.toISOString(),
      ipAddress: isHidden ? null : session.ipAddress,
      userAgent,
      device: deviceOf(userAgent),
      impersonatedBy: isHidden ? null : session.impersonatedBy,
      current: session.id === currentId,
    };
  }
}

export class SessionList {
  @ApiProperty({
    type: [SessionRead],
    description:
      'The newest sessions, at most 100. The session of this request is always included.',
  })
  items: SessionRead[];

  @ApiProperty({
    type: 'integer',
    description: 'The number of all sessions that have not expired',
    example: 1,
  })
  total: number;
}

export class RevocationScope {
  @ApiPropertyOptional({
    enum: ['current'],
    description: '`current` keeps the session of this request',
  })
  @IsOptional()
  @IsIn(['current'])
  except?: 'current';
}

/** The result of a revocation. */
export class SuccessResponse {
  @ApiProperty({ enum: [true] })
  success: true;

  @ApiProperty({ example: 'The sessions have ended.' })
  message: string;

  @ApiProperty({
    type: 'integer',
    description: 'The number of deleted session rows, including impersonations',
    example: 2,
  })
  revoked: number;

  @ApiProperty({
    type: String,
    format: 'date-time',
    nullable: true,
    description:
      'The latest time at which a token without a session id could still be accepted, or null. It is null with `SESSION_BINDING=require-sid`. Otherwise it covers tokens that Better-Auth’s cookie cache issues for an ended session.',
    example: '2026-12-08T12:00:00.000Z',
  })
  residual: string | null;

  static of(message: string, revoked: number, residual: Date | null): SuccessResponse {
    return { success: true, message, revoked, residual: residual?.toISOString() ?? null };
  }
}
