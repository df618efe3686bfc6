import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { IsBoolean, IsIn, IsInt, IsOptional, Max, Min } from 'class-validator';
import { Pagination } from '../validation/pagination.dto.js';
import { PlainText } from '../validation/plain-text.js';
import { PointInTime } from '../validation/iso-date-time.js';
import { UserRead } from './user.dto.js';

const USER_SORTS = ['createdAt', '-createdAt', 'email', '-email', 'name', '-name'] as const;
export type UserSort = (typeof USER_SORTS)[number];

const toNumber = Transform(({ value }: { value: unknown }) =>
  /^\d{1,9}$/.test(String(value)) ? Number(value) : value,
);
const toFlag = Transform(({ value }: { value: unknown }) =>
  value === 'true' ? true : value === 'false' ? false : value,
);

/**
 * Filters are combined with AND. Their examples are in `openapi-words.ts`; Swagger UI, which would fill them
 * in and send them, is given none, and `page` has no `default` for the same reason.
 */
export class UserQuery {
  @ApiPropertyOptional({
    type: 'integer',
    minimum: 1,
    maximum: 1_000_000,
    description: 'The first one is 1',
  })
  @IsOptional()
  @toNumber
  @IsInt()
  @Min(1)
  @Max(1_000_000)
  page?: number;

  @ApiPropertyOptional({ type: 'integer', minimum: 1, maximum: 100, default: 20 })
  @IsOptional()
  @toNumber
  @IsInt()
  @Min(1)
  @Max(100)
  limit: number = 20;

  @ApiPropertyOptional({
    description:
      '`nextCursor` of the page before, instead of `page`: as quick on the last as on the first',
  })
  @IsOptional()
  @PlainText(1, 2048)
  cursor?: string;

  @ApiPropertyOptional({ enum: USER_SORTS, default: '-createdAt' })
  @IsOptional()
  @IsIn(USER_SORTS)
  sort: UserSort = '-createdAt';

  @ApiPropertyOptional({ description: 'Has this role among theirs, such as admin' })
  @IsOptional()
  @PlainText(1, 100)
  role?: string;

  @ApiPropertyOptional({ type: Boolean, description: 'Is, or is not, banned now' })
  @IsOptional()
  @toFlag
  @IsBoolean()
  banned?: boolean;

  @ApiPropertyOptional({ type: Boolean })
  @IsOptional()
  @toFlag
  @IsBoolean()
  emailVerified?: boolean;

  @ApiPropertyOptional({ format: 'date-time', description: 'Such as 2026-01-01T00:00:00Z' })
  @IsOptional()
  @PointInTime()
  createdFrom?: string;

  @ApiPropertyOptional({ format: 'date-time', description: 'Such as 2026-12-31T23:59:59Z' })
  @IsOptional()
  @PointInTime()
  createdTo?: string;

  @ApiPropertyOptional({
    description: 'Part of the e-mail address or the name, in any case',
    minLength: 1,
    maxLength: 100,
  })
  @IsOptional()
  @PlainText(1, 100)
  q?: string;

  @ApiPropertyOptional({
    enum: ['estimate', 'exact', 'none'],
    default: 'estimate',
    description:
      '`estimate` counts where up to 10,000 are expected, and is the database’s estimate where more are',
  })
  @IsOptional()
  @IsIn(['estimate', 'exact', 'none'])
  total: 'estimate' | 'exact' | 'none' = 'estimate';
}

export class UserList {
  @ApiProperty({ type: [UserRead] })
  items: UserRead[];

  @ApiProperty({ type: Pagination })
  pagination: Pagination;
}
