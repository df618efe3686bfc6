import { ApiProperty, ApiPropertyOptional, IntersectionType } from '@nestjs/swagger';
import { IsIn, IsOptional } from 'class-validator';
import { PageQuery, Pagination } from '../validation/pagination.dto.js';
import { SessionFilter } from './session-filter.dto.js';
import type { FoundSession } from './session-list.repository.js';
import { SessionRead } from './session.dto.js';

const SESSION_SORTS = ['-createdAt', 'createdAt', '-updatedAt', 'expiresAt'] as const;
export type SessionSort = (typeof SESSION_SORTS)[number];

export class SessionQuery extends IntersectionType(SessionFilter, PageQuery) {
  @ApiPropertyOptional({
    enum: SESSION_SORTS,
    default: '-createdAt',
    description: 'A minus sign reverses the order. Equal values are ordered by id.',
  })
  @IsOptional()
  @IsIn(SESSION_SORTS)
  sort: SessionSort = '-createdAt';
}

/** The user of a session. */
export class SessionUser {
  @ApiProperty()
  id: string;

  @ApiProperty({ example: 'ada@example.com' })
  email: string;

  @ApiProperty({ example: 'Ada Lovelace' })
  name: string;
}

export class SessionWithUser extends SessionRead {
  @ApiProperty({ type: SessionUser })
  user: SessionUser;

  static from({ session, user }: FoundSession, currentId: string | null): SessionWithUser {
    return Object.assign(SessionRead.of(session, currentId, true), { user });
  }
}

export class SessionPage {
  @ApiProperty({ type: [SessionWithUser] })
  items: SessionWithUser[];

  @ApiProperty({ type: Pagination })
  pagination: Pagination;
}
