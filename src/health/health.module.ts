import { Module } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';
import { AuthModule } from '../auth/auth.module.js';
import { Environment } from '../config/environment.js';
import { DatabaseModule } from '../database/database.module.js';
import { HealthController } from './health.controller.js';
import { HealthParts } from './health-parts.js';

@Module({
  imports: [
    AuthModule,
    DatabaseModule,
    TerminusModule.forRootAsync({
      inject: [Environment],
      // On SIGTERM Terminus turns `ready` to 503 and holds the shutdown back for this long.
      useFactory: (environment: Environment) => ({
        logger: false,
        gracefulShutdownTimeoutMs: environment.SHUTDOWN_DELAY_MS,
      }),
    }),
  ],
  controllers: [HealthController],
  providers: [HealthParts],
})
export class HealthModule {}
