import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';

export class Liveness {
  @ApiProperty({ enum: ['ok'] })
  status: 'ok';
}

/** What the process is, and how the parts are that it stands on. */
export class HealthSummary {
  @ApiProperty({ enum: ['gatehouse'] })
  name: 'gatehouse';

  @ApiProperty({ example: '0.1.0' })
  version: string;

  @ApiProperty({ type: 'integer', example: 86_400 })
  uptimeSeconds: number;

  @ApiProperty({ enum: ['prefer-sid', 'require-sid', 'token-only'] })
  sessionBinding: 'prefer-sid' | 'require-sid' | 'token-only';

  @ApiPropertyOptional({ description: 'With `token-only`: what is not looked at' })
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
