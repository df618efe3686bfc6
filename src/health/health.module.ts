import { Module } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';
import { AuthModule } from '../auth/auth.module.js';
import { Environment } from '../config/environment.js';
import { DatabaseModule } from '../database/database.module.js';
import { ChangeFeedHealthIndicator } from './change-feed.health.js';
import { DatabaseHealthIndicator } from './database.health.js';
import { HealthController } from './health.controller.js';
import { IssuerKeysHealthIndicator } from './issuer-keys.health.js';
import { MigrationsHealthIndicator } from './migrations.health.js';

@Module({
  imports: [
    AuthModule,
    DatabaseModule,
    TerminusModule.forRootAsync({
      inject: [Environment],
      // On SIGTERM, Terminus makes `ready` respond with 503 and delays the shutdown by this time.
      useFactory: (environment: Environment) => ({
        logger: false,
        gracefulShutdownTimeoutMs: environment.SHUTDOWN_DELAY_MS,
      }),
    }),
  ],
  controllers: [HealthController],
  providers: [
    DatabaseHealthIndicator,
    MigrationsHealthIndicator,
    IssuerKeysHealthIndicator,
    ChangeFeedHealthIndicator,
  ],
})
export class HealthModule {}
