import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import { type HealthIndicatorResult, HealthIndicatorService } from '@nestjs/terminus';
import type { Logger } from 'pino';
import { LOG } from '../logging/logger.js';
import { singleFlight } from './single-flight.js';

/** Sends PostgreSQL a query and logs when it becomes unavailable and available again. */
@Injectable()
export class DatabaseHealthIndicator {
  /** Throws without the real reason, which names hosts and is only for the log. */
  readonly ping = singleFlight(() => this.sendPing());
  private isAvailable = true;

  constructor(
    private readonly health: HealthIndicatorService,
    private readonly em: EntityManager,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  async isHealthy(key: string): Promise<HealthIndicatorResult> {
    return this.health
      .check(key)
      .attempt(() => this.ping())
      .withTimeout(CHECK_TIMEOUT_MS);
  }

  query(sql: string): Promise<object[]> {
    return this.em.getConnection().execute<object[]>(sql);
  }

  private async sendPing(): Promise<void> {
    try {
      await this.query('select 1');
    } catch (error) {
      if (this.isAvailable) this.log.error({ err: error }, 'database unavailable');
      this.isAvailable = false;
      throw new Error('the database does not answer', { cause: error });
    }
    if (!this.isAvailable) this.log.info('database available again');
    this.isAvailable = true;
  }
}

/** Less than the response deadline in `request-tracker.ts`, whose problem names no indicator. */
export const CHECK_TIMEOUT_MS = 2100;
