import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';

export class FieldErrorRead {
  @ApiProperty({ example: 'name' })
  field: string;

  @ApiProperty({ example: 'name must be shorter than or equal to 100 characters' })
  message: string;
}

/** A problem as defined by RFC 9457 (`application/problem+json`). Switch on `code`. */
export class ErrorResponse {
  @ApiProperty({ format: 'uri', example: 'urn:gatehouse:problem:not-found' })
  type: string;

  @ApiProperty({ example: 'Not found' })
  title: string;

  @ApiProperty({ type: 'integer', example: 404 })
  status: number;

  @ApiProperty()
  detail: string;

  @ApiProperty({ description: 'The path of the request', example: '/api/v1/users/1' })
  instance: string;

  // `openapi/document.ts` adds the enum, because modules register codes after this decorator runs.
  @ApiProperty({ example: 'NOT_FOUND' })
  code: string;

  @ApiProperty({ example: '8f14e45f-ceea-467f-a0e6-c0f2a8a1b1de' })
  requestId: string;

  @ApiPropertyOptional({ type: [FieldErrorRead] })
  errors?: FieldErrorRead[];

  @ApiPropertyOptional({
    type: 'object',
    additionalProperties: { type: 'array', items: { type: 'string' } },
    description: 'Only with `AUTH_FORBIDDEN`: the missing permissions, if the route requires any',
    example: { user: ['ban'] },
  })
  missing?: Record<string, string[]>;

  @ApiPropertyOptional({ type: String, nullable: true, description: 'Only with `USER_BANNED`' })
  banReason?: string | null;

  @ApiPropertyOptional({
    type: String,
    format: 'date-time',
    nullable: true,
    description: 'Only with `USER_BANNED`. Null if the ban is permanent.',
  })
  banExpires?: string | null;

  @ApiPropertyOptional({
    type: 'integer',
    description: 'With `COUNT_MISMATCH`: the number of sessions that match',
    example: 12,
  })
  matched?: number;
}
