import { ApiPropertyOptional } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { IsOptional, IsUrl, ValidateIf } from 'class-validator';
import { OneLine, PlainText } from '../validation/plain-text.js';

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
    description: 'The URL of a picture. Null removes the picture.',
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
