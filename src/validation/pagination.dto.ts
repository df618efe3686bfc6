import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { Transform } from 'class-transformer';
import { IsIn, IsInt, IsOptional, Max, Min } from 'class-validator';
import { EXAMPLE_CURSOR } from './cursor.js';
import { PlainText } from './plain-text.js';

/** Query parameters are texts. */
const toNumber = Transform(({ value }: { value: unknown }) =>
  /^\d{1,9}$/.test(String(value)) ? Number(value) : value,
);
export const toFlag = Transform(({ value }: { value: unknown }) =>
  value === 'true' ? true : value === 'false' ? false : value,
);

/** The query parameters of a list with cursors. */
export class CursorQuery {
  @ApiPropertyOptional({
    type: 'integer',
    minimum: 1,
    maximum: 100,
    default: 20,
    description: 'The maximum number of items on a page',
    example: 20,
  })
  @IsOptional()
  @toNumber
  @IsInt()
  @Min(1)
  @Max(100)
  limit: number = 20;

  @ApiPropertyOptional({
    description: '`nextCursor` of the previous page. Every page is equally fast.',
    example: EXAMPLE_CURSOR,
    maxLength: 2048,
  })
  @IsOptional()
  @PlainText(1, 2048)
  cursor?: string;
}

/**
 * The query parameters of a list with cursors, page numbers and a total. `page` has no `default`,
 * because Swagger UI would fill it in and send it.
 */
export class PageQuery extends CursorQuery {
  @ApiPropertyOptional({
    type: 'integer',
    minimum: 1,
    maximum: 1_000_000,
    description: 'The number of the page, starting at 1. `cursor` excludes it.',
    example: 1,
  })
  @IsOptional()
  @toNumber
  @IsInt()
  @Min(1)
  @Max(1_000_000)
  page?: number;

  @ApiPropertyOptional({
    enum: ['estimate', 'exact', 'none'],
    default: 'estimate',
    description:
      '`estimate` counts up to 10,000 rows exactly. If there are more, or if counting them would take long, it returns the estimate of the database. `exact` always counts. `none` omits the total.',
  })
  @IsOptional()
  @IsIn(['estimate', 'exact', 'none'])
  total: 'estimate' | 'exact' | 'none' = 'estimate';
}

/** The pagination of a list with cursors. */
export class CursorPagination {
  @ApiProperty({ type: 'integer', example: 20 })
  limit: number;

  @ApiProperty({
    type: String,
    nullable: true,
    description: 'The cursor of the next page, or null on the last page',
    example: null,
  })
  nextCursor: string | null;
}

/** The pagination of a list with cursors, page numbers and a total. */
export class Pagination extends CursorPagination {
  @ApiProperty({
    type: 'integer',
    nullable: true,
    description: 'Null if the request has a `cursor`',
    example: 1,
  })
  page: number | null;

  @ApiProperty({
    type: 'integer',
    nullable: true,
    description: 'Null with `total=none`',
    example: 2,
  })
  total: number | null;

  @ApiProperty({ type: 'integer', nullable: true, example: 1 })
  totalPages: number | null;

  @ApiProperty({
    description:
      'Whether `total` is an estimate, because more than 10,000 are expected or counting would take long',
    example: false,
  })
  totalIsEstimate: boolean;
}
