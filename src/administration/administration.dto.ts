import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import {
  ArrayMaxSize,
  ArrayMinSize,
  ArrayUnique,
  IsArray,
  IsOptional,
  IsString,
  MaxLength,
} from 'class-validator';
import { PlainText } from '../validation/plain-text.js';
import { PointInTime } from '../validation/iso-date-time.js';

export class RoleUpdate {
  @ApiProperty({
    description: 'One role or a list of roles. `ROLES` configures the allowed roles.',
    oneOf: [
      { type: 'string', maxLength: 100, example: 'user' },
      {
        type: 'array',
        items: { type: 'string', maxLength: 100 },
        minItems: 1,
        maxItems: 20,
        uniqueItems: true,
        example: ['user', 'support'],
      },
    ],
  })
  @Transform(({ value }: { value: unknown }) => (typeof value === 'string' ? [value] : value))
  @IsArray({ message: 'role must be a role or a list of roles' })
  @ArrayMinSize(1)
  @ArrayMaxSize(20)
  @ArrayUnique()
  @IsString({ each: true })
  @MaxLength(100, { each: true })
  role: string[];
}

export class BanRequest {
  @ApiPropertyOptional({
    type: String,
    nullable: true,
    minLength: 1,
    maxLength: 500,
    description: 'The reason for the ban',
    example: 'Spam',
  })
  @IsOptional()
  @PlainText(1, 500)
  reason?: string | null;

  @ApiPropertyOptional({
    type: String,
    format: 'date-time',
    nullable: true,
    maxLength: 40,
    description: 'The end of the ban. Null: the ban has no end.',
    example: null,
  })
  @IsOptional()
  @PointInTime()
  @MaxLength(40)
  expiresAt?: string | null;
}
