import { ApiProperty } from '@nestjs/swagger';

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
