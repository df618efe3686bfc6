import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import {
  ArrayMaxSize,
  ArrayMinSize,
  ArrayUnique,
  IsArray,
  IsOptional,
  IsString,
  IsUrl,
  MaxLength,
  ValidateIf,
} from 'class-validator';
import { OneLine, PlainText } from '../validation/plain-text.js';
import { PointInTime } from '../validation/iso-date-time.js';

export class UserUpdate {
  @ApiPropertyOptional({ minLength: 1, maxLength: 100, example: 'Ada Lovelace' })
  @ValidateIf((update: UserUpdate) => update.name !== undefined)
  @Transform(({ value }: { value: unknown }) => (typeof value === 'string' ? value.trim() : value))
  @OneLine(1, 100)
  name?: string;

  @ApiPropertyOptional({
    type: String,
    nullable: true,
    maxLength: 2048,
    description: 'The address of a picture, or null for none',
    example: 'https://example.com/ada.png',
  })
  @IsOptional()
  @PlainText(1, 2048)
  @IsUrl(
    { protocols: ['http', 'https'], require_protocol: true, require_tld: false },
    { message: 'image must be an address that begins with http:// or https://' },
  )
  image?: string | null;
}

export class RoleUpdate {
  @ApiProperty({
    description: 'One role or several, each of those that are set up (`ROLES`)',
    oneOf: [
      { type: 'string', maxLength: 100, example: 'admin' },
      {
        type: 'array',
        items: { type: 'string', maxLength: 100 },
        minItems: 1,
        maxItems: 20,
        uniqueItems: true,
        example: ['admin', 'support'],
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
    example: 'spam',
  })
  @IsOptional()
  @PlainText(1, 500)
  reason?: string | null;

  @ApiPropertyOptional({
    type: String,
    format: 'date-time',
    nullable: true,
    maxLength: 40,
    description: 'When it ends; without it, never',
    example: '2030-01-01T00:00:00.000Z',
  })
  @IsOptional()
  @PointInTime()
  @MaxLength(40)
  expiresAt?: string | null;
}
