import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { Type } from 'class-transformer';
import {
  IsBoolean,
  IsDefined,
  IsIn,
  IsInt,
  IsObject,
  IsOptional,
  Max,
  Min,
  ValidateIf,
  ValidateNested,
} from 'class-validator';
import { PlainText } from '../validation/plain-text.js';
import { SessionFilter } from './session-filter.dto.js';
import { SessionRead } from './session.dto.js';

/** The filter of the list, or `{ "all": true }`. */
export class RevocationFilter extends SessionFilter {
  @ApiPropertyOptional({
    enum: [true],
    description: 'Every active session. It excludes all other conditions.',
  })
  @ValidateIf((_, value) => value !== undefined)
  @IsIn([true])
  all?: true;
}

export class SessionRevocation {
  @ApiProperty({
    type: RevocationFilter,
    description: 'At least one condition besides `state: active`, or `{ "all": true }`',
    example: { ip: '203.0.113.0/24' },
  })
  @IsDefined()
  @IsObject()
  @ValidateNested()
  @Type(() => RevocationFilter)
  filter: RevocationFilter;

  @ApiPropertyOptional({
    default: false,
    description: 'Ends nothing. The response shows what would end.',
    example: true,
  })
  @IsOptional()
  @IsBoolean()
  dryRun: boolean = false;

  @ApiPropertyOptional({
    type: 'integer',
    minimum: 0,
    maximum: 1_000_000_000,
    description:
      'The number of sessions that you expect to match, for example `matched` of a dry run. If another number matches, no session ends.',
    example: 12,
  })
  @IsOptional()
  @IsInt()
  @Min(0)
  @Max(1_000_000_000)
  expected?: number;

  @ApiPropertyOptional({
    default: false,
    description:
      'Also ends your own session, after all others. Without a session id in your token, all your sessions count as your own.',
  })
  @IsOptional()
  @IsBoolean()
  includeOwn: boolean = false;

  @ApiPropertyOptional({
    type: String,
    nullable: true,
    minLength: 1,
    maxLength: 500,
    description: 'The reason, for the audit events',
    example: 'abuse from this network',
  })
  @IsOptional()
  @PlainText(1, 500)
  reason?: string | null;
}

/** The result of a revocation by filter. */
export class SessionRevocationResult {
  @ApiProperty({
    type: 'integer',
    description: 'The number of sessions that matched, including your own',
    example: 12,
  })
  matched: number;

  @ApiProperty({
    description: 'Whether `matched` is an estimate, as it can be above 10,000 without `expected`',
  })
  matchedIsEstimate: boolean;

  @ApiProperty({
    type: 'integer',
    description: 'The number of sessions that this call ended. 0 in a dry run.',
    example: 12,
  })
  revoked: number;

  @ApiProperty({
    type: 'integer',
    description:
      'The number of users of the ended sessions, or in a dry run of the sessions that one call would end',
    example: 3,
  })
  users: number;

  @ApiProperty({
    type: 'integer',
    description:
      'The number of matching sessions that continue, because their users have permissions that you lack. It counts the newest 10,000 sessions.',
    example: 0,
  })
  skipped: number;

  @ApiProperty({
    description:
      'Whether matching sessions remain, besides your own. One call ends at most 10,000. Send the request again.',
  })
  more: boolean;

  @ApiProperty({
    type: String,
    format: 'date-time',
    nullable: true,
    description:
      'The latest time at which a token not bound to a session could still be accepted, as in the end of one session. Null in a dry run.',
    example: '2026-12-08T12:00:00.000Z',
  })
  residual: string | null;

  @ApiProperty({
    type: [SessionRead],
    description: 'The newest matching sessions, at most 10. Empty without `session:list`.',
  })
  sample: SessionRead[];
}
