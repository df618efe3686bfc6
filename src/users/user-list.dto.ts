import { ApiProperty, ApiPropertyOptional, IntersectionType } from '@nestjs/swagger';
import { IsBoolean, IsIn, IsOptional } from 'class-validator';
import type { UserRow } from '../access/principal.js';
import { PageQuery, Pagination, toFlag } from '../validation/pagination.dto.js';
import { PlainText } from '../validation/plain-text.js';
import { PointInTime } from '../validation/iso-date-time.js';
import type { SessionSummary } from './user-sessions.repository.js';
import { UserRead } from './user.dto.js';

const USER_SORTS = ['createdAt', '-createdAt', 'email', '-email', 'name', '-name'] as const;
export type UserSort = (typeof USER_SORTS)[number];

/** All filters must match. */
class UserFilterQuery {
  @ApiPropertyOptional({
    description: 'Part of the e-mail address or the name. Upper and lower case are equal.',
    example: 'ada',
    minLength: 1,
    maxLength: 100,
  })
  @IsOptional()
  @PlainText(1, 100)
  q?: string;

  @ApiPropertyOptional({
    description: 'Only users who have this role',
    example: 'admin',
    maxLength: 100,
  })
  @IsOptional()
  @PlainText(1, 100)
  role?: string;

  @ApiPropertyOptional({
    type: Boolean,
    description: 'Only users who are, or are not, banned now',
    example: true,
  })
  @IsOptional()
  @toFlag
  @IsBoolean()
  banned?: boolean;

  @ApiPropertyOptional({
    type: Boolean,
    description: 'Only users whose e-mail address is, or is not, verified',
    example: true,
  })
  @IsOptional()
  @toFlag
  @IsBoolean()
  emailVerified?: boolean;

  @ApiPropertyOptional({
    format: 'date-time',
    description: 'Only users created at or after this time',
    example: '2026-01-01T00:00:00Z',
    maxLength: 40,
  })
  @IsOptional()
  @PointInTime()
  createdFrom?: string;

  @ApiPropertyOptional({
    format: 'date-time',
    description: 'Only users created at or before this time',
    example: '2026-12-31T23:59:59Z',
    maxLength: 40,
  })
  @IsOptional()
  @PointInTime()
  createdTo?: string;

  @ApiPropertyOptional({
    format: 'date-time',
    description:
      'Only users without a stored session of their own that began since this time. A sign-out deletes a session. With this filter, a total above 10,000 is a rough estimate.',
    example: '2026-01-01T00:00:00Z',
    maxLength: 40,
  })
  @IsOptional()
  @PointInTime()
  signedInBefore?: string;
}

export class UserQuery extends IntersectionType(UserFilterQuery, PageQuery) {
  @ApiPropertyOptional({
    enum: USER_SORTS,
    default: '-createdAt',
    description: 'A minus sign reverses the order. Equal values are ordered by id.',
  })
  @IsOptional()
  @IsIn(USER_SORTS)
  sort: UserSort = '-createdAt';

  @ApiPropertyOptional({
    enum: ['sessions'],
    description: '`sessions` adds `lastSignInAt` and `activeSessions` to each user',
    example: 'sessions',
  })
  @IsOptional()
  @IsIn(['sessions'])
  include?: 'sessions';
}

/** A user in the list. */
export class ListedUser extends UserRead {
  @ApiPropertyOptional({
    type: String,
    format: 'date-time',
    nullable: true,
    description:
      'With `include=sessions`: when the newest stored session of the user began. Sessions in which an admin impersonates the user do not count. Null if there is none.',
    example: '2026-11-01T08:00:00.000Z',
  })
  lastSignInAt?: string | null;

  @ApiPropertyOptional({
    type: 'integer',
    nullable: true,
    description:
      'With `include=sessions`: the number of sessions that have not expired, including those in which an admin impersonates the user. Null if this database stores no sessions.',
    example: 1,
  })
  activeSessions?: number | null;

  /** `summaries` is undefined if the client has not requested the sessions. */
  static from(user: UserRow, now: Date, summaries?: Map<string, SessionSummary>): ListedUser {
    const read = UserRead.of(user, now);
    if (!summaries) return read;
    const { lastSignInAt = null, activeSessions = null } = summaries.get(user.id) ?? {};
    return Object.assign(read, {
      lastSignInAt: lastSignInAt?.toISOString() ?? null,
      activeSessions,
    });
  }
}

export class UserList {
  @ApiProperty({ type: [ListedUser] })
  items: ListedUser[];

  @ApiProperty({ type: Pagination })
  pagination: Pagination;
}
