import { ApiProperty } from '@nestjs/swagger';

/** Where a page stands in a list that is walked. */
export class CursorPagination {
  @ApiProperty({ type: 'integer', example: 20 })
  limit: number;

  @ApiProperty({ type: String, nullable: true, description: 'For the next page; null on the last' })
  nextCursor: string | null;
}

/** And in one that is counted, too. */
export class Pagination extends CursorPagination {
  @ApiProperty({ type: 'integer', nullable: true, description: 'Null when walking by cursor' })
  page: number | null;

  @ApiProperty({ type: 'integer', nullable: true, description: 'Null with `total=none`' })
  total: number | null;

  @ApiProperty({ type: 'integer', nullable: true })
  totalPages: number | null;

  @ApiProperty({
    description: 'Where more than 10,000 are expected, the total is the database’s estimate',
  })
  totalIsEstimate: boolean;
}
