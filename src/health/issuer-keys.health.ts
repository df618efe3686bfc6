import { Injectable } from '@nestjs/common';
import { type HealthIndicatorResult, HealthIndicatorService } from '@nestjs/terminus';
import { KeyRing } from '../auth/key-ring.js';

/** Reports whether there is a key to verify tokens with, and whether the issuer still responds. */
@Injectable()
export class IssuerKeysHealthIndicator {
  constructor(
    private readonly health: HealthIndicatorService,
    private readonly keys: KeyRing,
  ) {}

  isHealthy(key: string): HealthIndicatorResult {
    const indicator = this.health.check(key);
    const { state, keys, lastSuccessAt } = this.keys.status();
    if (state === 'unavailable') {
      return indicator.down('no usable key set; the issuer does not answer');
    }
    const details = { keys, fetchedAt: lastSuccessAt?.toISOString() ?? null };
    return state === 'degraded'
      ? indicator.degraded({
          ...details,
          message: 'the issuer does not answer; its last keys serve on',
        })
      : indicator.up(details);
  }
}
