import {
  Global,
  Injectable,
  Module,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { APP_GUARD } from '@nestjs/core';
import { ThrottlerModule } from '@nestjs/throttler';
import type { Logger } from 'pino';
import { LOG } from '../logging/logger.js';
import { AccountsModule } from '../accounts/accounts.module.js';
import { BodyGuard } from '../http/body.guard.js';
import { UnknownQueryGuard } from '../validation/unknown-query.guard.js';
import { RateLimiter } from '../rate-limit/rate-limiter.js';
import { Environment } from '../config/environment.js';
import { AuthController } from './auth.controller.js';
import { AuthEvents } from './auth-events.js';
import { AuthFailures } from './auth-failures.js';
import { AuthMetrics } from './auth-metrics.js';
import { AuthGuard } from './auth.guard.js';
import { AuthService } from './auth.service.js';
import { JwtStrategy } from './jwt.strategy.js';
import { KeyRing } from './key-ring.js';
import { OrmContextGuard } from '../http/orm-context.guard.js';
import { DatabaseModule } from '../database/database.module.js';
import { UserCache } from './user-cache.js';
import { AuthRepository } from './auth.repository.js';
import {
  DecoratedRoutes,
  RateLimitGuard,
  THROTTLER_OPTIONS,
} from '../rate-limit/rate-limit.guard.js';
import { ActorCheck } from '../access/actor-check.js';
import { AccessGuard } from '../access/access.guard.js';
import { TokenActorCheck } from './token-actor-check.js';
import { TokenVerifier } from './token-verifier.js';

/** Starts to fetch the issuer's keys with the application, and stops with it. */
@Injectable()
class KeyRingLifecycle implements OnApplicationBootstrap, OnApplicationShutdown {
  constructor(private readonly keys: KeyRing) {}

  /** Not awaited: without the issuer the service starts, but reports that it is not ready. */
  onApplicationBootstrap(): void {
    void this.keys.start();
  }

  onApplicationShutdown(): void {
    this.keys.stop();
  }
}

/** Global, so that feature modules can inject the abstract `ActorCheck` without importing auth. */
@Global()
@Module({
  imports: [AccountsModule, DatabaseModule, ThrottlerModule.forRoot(THROTTLER_OPTIONS)],
  controllers: [AuthController],
  providers: [
    {
      provide: KeyRing,
      inject: [Environment, LOG],
      useFactory: (environment: Environment, log: Logger) =>
        new KeyRing(
          {
            url: environment.jwksUrl,
            cooldownSeconds: environment.JWKS_COOLDOWN_SECONDS,
            refreshSeconds: environment.JWKS_REFRESH_SECONDS,
            maxStaleSeconds: environment.JWKS_MAX_STALE_SECONDS,
            algorithms: environment.JWT_ALGORITHMS,
          },
          log,
        ),
    },
    {
      provide: TokenVerifier,
      inject: [KeyRing, Environment],
      useFactory: (keys: KeyRing, environment: Environment) =>
        new TokenVerifier(
          keys,
          {
            issuer: environment.issuer,
            audiences: environment.audiences,
            algorithms: environment.JWT_ALGORITHMS,
            leewaySeconds: environment.JWT_LEEWAY_SECONDS,
            maxLifetimeSeconds: environment.JWT_MAX_LIFETIME_SECONDS,
            sessionClaim: environment.JWT_SESSION_CLAIM,
          },
          Date.now,
          environment.TOKEN_CACHE_MAX,
        ),
    },
    KeyRingLifecycle,
    AuthRepository,
    UserCache,
    AuthService,
    JwtStrategy,
    { provide: ActorCheck, useClass: TokenActorCheck },
    AuthEvents,
    AuthMetrics,
    AuthFailures,
    RateLimiter,
    DecoratedRoutes,
    // These guards run in this order, before every route of every module.
    { provide: APP_GUARD, useClass: OrmContextGuard },
    { provide: APP_GUARD, useClass: AuthGuard },
    { provide: APP_GUARD, useClass: RateLimitGuard },
    { provide: APP_GUARD, useClass: AccessGuard },
    { provide: APP_GUARD, useClass: BodyGuard },
    { provide: APP_GUARD, useClass: UnknownQueryGuard },
  ],
  exports: [KeyRing, ActorCheck, AuthService],
})
export class AuthModule {}
