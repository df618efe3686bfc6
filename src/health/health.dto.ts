import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';

export class Liveness {
  @ApiProperty({ enum: ['ok'] })
  status: 'ok';
}

/** The process and the status of its dependencies. */
export class HealthSummary {
  @ApiProperty({ enum: ['gatehouse'] })
  name: 'gatehouse';

  @ApiProperty({ example: '0.1.0' })
  version: string;

  @ApiProperty({ type: 'integer', example: 86_400 })
  uptimeSeconds: number;

  @ApiProperty({ enum: ['prefer-sid', 'require-sid', 'token-only'] })
  sessionBinding: 'prefer-sid' | 'require-sid' | 'token-only';

  @ApiPropertyOptional({ description: 'Only with `token-only`: the checks that this mode omits' })
  warning?: string;

  @ApiProperty({
    type: 'object',
    additionalProperties: {
      type: 'object',
      properties: { status: { type: 'string', enum: ['up', 'down', 'degraded'] } },
      required: ['status'],
      additionalProperties: true,
    },
    example: { database: { status: 'up', responseTime: 1 }, changeFeed: { status: 'up' } },
  })
  parts: Record<string, { status: 'up' | 'down' | 'degraded' }>;
}
