import { ApiProperty } from '@nestjs/swagger';
import type { SessionRow } from '../auth/principal.js';

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

  @ApiProperty({
    type: String,
    nullable: true,
    description: 'The admin who acts as this user, where one does',
  })
  impersonatedBy: string | null;

  @ApiProperty({ description: 'Whether this request was made in it' })
  current: boolean;

  static of(session: SessionRow, currentId: string | null): SessionRead {
    return {
      id: session.id,
      userId: session.userId,
      createdAt: session.createdAt.toISOString(),
      updatedAt: session.updatedAt.toISOString(),
      expiresAt: session.expiresAt.toISOString(),
      ipAddress: session.ipAddress,
      userAgent: session.userAgent,
      impersonatedBy: session.impersonatedBy,
      current: session.id === currentId,
    };
  }
}
