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
    description:
      'Whether `matched` is an estimate. It can be one above 10,000, without `expected`.',
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
      'The number of users whose sessions ended. In a dry run: whose sessions one call would end.',
    example: 3,
  })
  users: number;

  @ApiProperty({
    type: 'integer',
    description:
      'The number of sessions that continue because their users have permissions that you lack. Only the newest 10,000 matching sessions are counted.',
    example: 0,
  })
  skipped: number;

  @ApiProperty({
    description:
      'Whether this call did not read all matching sessions, or did not end all that it read in time. Send the request again. If `revoked` is 0, narrow the filter instead, for example by `createdTo`: all of the newest 10,000 sessions were skipped.',
  })
  more: boolean;

  @ApiProperty({
    type: String,
    format: 'date-time',
    nullable: true,
    description:
      'The latest time at which a token without a session id could still be accepted. Null in a dry run, and with `SESSION_BINDING=require-sid`.',
    example: '2026-12-08T12:00:00.000Z',
  })
  residual: string | null;

  @ApiProperty({
    type: [SessionRead],
    description: 'The newest matching sessions, at most 10. Empty without `session:list`.',
  })
  sample: SessionRead[];
}
