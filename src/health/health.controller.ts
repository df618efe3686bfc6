import { readFileSync } from 'node:fs';
import { Controller, Get, ServiceUnavailableException } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { HealthCheck, HealthCheckService, type HealthIndicatorResult } from '@nestjs/terminus';
import { SkipThrottle } from '@nestjs/throttler';
import { Environment } from '../config/environment.js';
import { TOKEN_ONLY_WARNING } from '../config/warnings.js';
import { Public } from '../access/decorators.js';
import { ChangeFeedHealthIndicator } from './change-feed.health.js';
import { DatabaseHealthIndicator } from './database.health.js';
import { HealthSummary, Liveness } from './health.dto.js';
import { IssuerKeysHealthIndicator } from './issuer-keys.health.js';
import { MigrationsHealthIndicator } from './migrations.health.js';

@Public()
@SkipThrottle()
@Controller('health')
@ApiTags('Health')
export class HealthController {
  private readonly indicators: (() => HealthIndicatorResult | Promise<HealthIndicatorResult>)[] = [
    () => this.database.isHealthy('database'),
    () => this.migrations.isHealthy('migrations'),
    () => this.issuerKeys.isHealthy('issuerKeys'),
    () => this.changeFeed.isHealthy('changeFeed'),
  ];

  constructor(
    private readonly terminus: HealthCheckService,
    private readonly database: DatabaseHealthIndicator,
    private readonly migrations: MigrationsHealthIndicator,
    private readonly issuerKeys: IssuerKeysHealthIndicator,
    private readonly changeFeed: ChangeFeedHealthIndicator,
    private readonly environment: Environment,
  ) {}

  @Get()
  @ApiOperation({
    operationId: 'getHealth',
    summary: 'Status summary',
    description: 'Always 200 while the process runs. `parts` contains the details.',
  })
  @ApiOkResponse({ type: HealthSummary })
  async summary(): Promise<HealthSummary> {
    const results = await Promise.all(this.indicators.map(async (isHealthy) => isHealthy()));
    return {
      name: 'gatehouse',
      version: VERSION,
      uptimeSeconds: Math.floor(process.uptime()),
      sessionBinding: this.environment.SESSION_BINDING,
      ...(this.environment.SESSION_BINDING === 'token-only' ? { warning: TOKEN_ONLY_WARNING } : {}),
      parts: Object.assign({}, ...results) as HealthSummary['parts'],
    };
  }

  @Get('live')
  @ApiOperation({
    operationId: 'getLiveness',
    summary: 'Liveness probe',
    description: 'Checks no dependency.',
  })
  @ApiOkResponse({ type: Liveness })
  live(): Liveness {
    return { status: 'ok' };
  }

  @Get('ready')
  @HealthCheck()
  @ApiOperation({
    operationId: 'getReadiness',
    summary: 'Readiness probe',
    description:
      'Checks the database, the migrations and the keys that verify tokens. While the issuer is unreachable but its keys are cached, the status is `degraded` and the service stays ready. The response is 503 as soon as the process begins to shut down.',
  })
  ready() {
    return this.terminus.check(this.indicators);
  }

  @Get('db')
  @HealthCheck()
  @ApiOperation({
    operationId: 'getDatabaseHealth',
    summary: 'Database check',
    description: 'Checks only the database.',
  })
  async databaseHealth() {
    const details = await this.database.isHealthy('database');
    const isUp = details['database']?.status === 'up';
    // The format of Terminus without its check, which fails during a shutdown.
    if (isUp) return { status: 'ok', info: details, error: {}, details };
    throw new ServiceUnavailableException({ status: 'error', info: {}, error: details, details });
  }
}

const VERSION = readVersion();

/** `package.json` is next to `src` in development and next to `dist` in production. */
function readVersion(): string {
  for (const path of ['../../package.json', '../../../package.json']) {
    try {
      const { version } = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as {
        version: string;
      };
      return version;
    } catch {
      continue;
    }
  }
  return 'unknown';
}
