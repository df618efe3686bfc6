import { Injectable } from '@nestjs/common';
import { type HealthIndicatorResult, HealthIndicatorService } from '@nestjs/terminus';
import { ChangeFeed } from '../database/change-feed.js';

/** Without the change feed, every request queries the database: slower, but equally correct. */
@Injectable()
export class ChangeFeedHealthIndicator {
  constructor(
    private readonly health: HealthIndicatorService,
    private readonly feed: ChangeFeed,
  ) {}

  isHealthy(key: string): HealthIndicatorResult {
    const indicator = this.health.check(key);
    const state = this.feed.state();
    return state === 'disconnected'
      ? indicator.degraded({ state, message: 'every request queries the database' })
      : indicator.up({ state });
  }
}
