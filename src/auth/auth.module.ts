import {
  Injectable,
  Module,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import type { Logger } from 'pino';
import { LOG } from '../common/foundation.module.js';
import { Environment } from '../config/environment.js';
import { KeyRing } from './key-ring.js';

/** Begins to fetch the issuer's keys when the application starts, and stops when it ends. */
@Injectable()
class KeyRingLife implements OnApplicationBootstrap, OnApplicationShutdown {
  constructor(private readonly keys: KeyRing) {}

  /** Not waited for: without the issuer the service starts, and says that it is not ready. */
  onApplicationBootstrap(): void {
    void this.keys.start();
  }

  onApplicationShutdown(): void {
    this.keys.stop();
  }
}

@Module({
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
    KeyRingLife,
  ],
  exports: [KeyRing],
})
export class AuthModule {}
