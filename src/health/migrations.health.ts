import { Injectable } from '@nestjs/common';
import { type HealthIndicatorResult, HealthIndicatorService } from '@nestjs/terminus';
import { migrationNames } from '../../mikro-orm.config.js';
import { pendingMigrations } from '../database/pending-migrations.js';
import { CHECK_TIMEOUT_MS, DatabaseHealthIndicator } from './database.health.js';
import { singleFlight } from './single-flight.js';

/** Checks that the database has every migration of this build. */
@Injectable()
export class MigrationsHealthIndicator {
  private readonly check = singleFlight(() => this.checkPending());
  /** Stays true: a migration is never reverted while the service runs. */
  private isMigrated = false;

  constructor(
    private readonly health: HealthIndicatorService,
    private readonly database: DatabaseHealthIndicator,
  ) {}

  async isHealthy(key: string): Promise<HealthIndicatorResult> {
    return this.health
      .check(key)
      .attempt(async () => {
        if (!this.isMigrated) await this.check();
      })
      .withTimeout(CHECK_TIMEOUT_MS);
  }

  private async checkPending(): Promise<void> {
    // The ping comes first because simultaneous requests share it.
    const pending = await this.database
      .ping()
      .then(() => pendingMigrations(migrationNames(), (sql) => this.database.query(sql)))
      .catch(() => null);
    if (pending === null) throw new Error('not known while the database does not answer');
    if (pending.length > 0) throw new Error(`${pending.length} pending: npm run migrate`);
    this.isMigrated = true;
  }
}
