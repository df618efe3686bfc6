import { ApiPropertyOptional } from '@nestjs/swagger';
import { IsBoolean, IsIn, ValidateIf } from 'class-validator';
import { EXAMPLE_USER_ID } from '../openapi/parameters.js';
import { IpRange } from '../validation/ip-range.js';
import { PointInTime } from '../validation/iso-date-time.js';
import { toFlag } from '../validation/pagination.dto.js';
import { PlainText } from '../validation/plain-text.js';

/** Unlike `@IsOptional`, it refuses null: a filter with an empty value must not match everybody. */
const IfPresent = () => ValidateIf((_, value) => value !== undefined);

/** Selects sessions, in the list and in a revocation. All conditions must match. */
export class SessionFilter {
  @ApiPropertyOptional({
    description: 'Only the sessions of this user',
    example: EXAMPLE_USER_ID,
    maxLength: 255,
  })
  @IfPresent()
  @PlainText(1, 255)
  userId?: string;

  @ApiPropertyOptional({
    description:
      'Only sessions from this IP address or network. Better-Auth stores the first 64 bits of an IPv6 address: use a network such as `2001:db8:1:2::/64`.',
    example: '203.0.113.0/24',
    maxLength: 64,
  })
  @IfPresent()
  @IpRange()
  ip?: string;

  @ApiPropertyOptional({
    format: 'date-time',
    description: 'Only sessions that began at or after this time',
    example: '2026-01-01T00:00:00Z',
    maxLength: 40,
  })
  @IfPresent()
  @PointInTime()
  createdFrom?: string;

  @ApiPropertyOptional({
    format: 'date-time',
    description: 'Only sessions that began at or before this time',
    example: '2026-12-31T23:59:59Z',
    maxLength: 40,
  })
  @IfPresent()
  @PointInTime()
  createdTo?: string;

  @ApiPropertyOptional({
    type: Boolean,
    description:
      '`true`: only sessions in which an admin impersonates the user. `false`: only others.',
    example: true,
  })
  @IfPresent()
  @toFlag
  @IsBoolean()
  impersonated?: boolean;

  @ApiPropertyOptional({
    enum: ['active', 'expired'],
    default: 'active',
    description:
      '`active` sessions have not expired. Better-Auth can store expired sessions for a long time.',
  })
  @IfPresent()
  @IsIn(['active', 'expired'])
  state: 'active' | 'expired' = 'active';
}
