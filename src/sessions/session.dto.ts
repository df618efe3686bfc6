import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { IsIn, IsOptional } from 'class-validator';
import type { SessionRow } from '../access/principal.js';
import { DeviceRead, deviceOf } from './device.js';

/** A session as clients see one; never its token. */
export class SessionRead {
  @ApiProperty({ example: 'Kq1cW9nNn3cJr0mH7yqD2vXo8sTfLbAe' })
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

  @ApiProperty({ type: DeviceRead, description: 'Read from the user agent' })
  device: DeviceRead;

  @ApiProperty({
    type: String,
    nullable: true,
    description: 'The admin who acts as this user, where one does; only admins see it',
  })
  impersonatedBy: string | null;

  @ApiProperty({ description: 'Whether this request was made in it' })
  current: boolean;

  /** Who impersonates a user, and from where, is shown to admins alone. */
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
    description: 'The newest 100 at most; the one in which you ask is among them',
  })
  items: SessionRead[];

  @ApiProperty({ type: 'integer', description: 'All that have not ended', example: 1 })
  total: number;
}

export class RevocationScope {
  @ApiPropertyOptional({
    enum: ['current'],
    description: '`current` keeps the session in which you ask for it',
  })
  @IsOptional()
  @IsIn(['current'])
  except?: 'current';
}

/** A revocation that was carried out. */
export class SuccessResponse {
  @ApiProperty({ enum: [true] })
  success: true;

  @ApiProperty({ example: 'The sessions have ended.' })
  message: string;

  @ApiProperty({
    type: 'integer',
    description: 'How many session rows were deleted, impersonations included',
    example: 2,
  })
  revoked: number;

  @ApiProperty({
    type: String,
    format: 'date-time',
    nullable: true,
    description:
      'The latest time at which a token not bound to a session could still be accepted, or null. It is null with `SESSION_BINDING=require-sid`. Otherwise it covers tokens that Better-Auth’s cookie cache issues for an ended session.',
    example: '2026-12-08T12:00:00.000Z',
  })
  residual: string | null;

  static of(message: string, revoked: number, residual: Date | null): SuccessResponse {
    return { success: true, message, revoked, residual: residual?.toISOString() ?? null };
  }
}
