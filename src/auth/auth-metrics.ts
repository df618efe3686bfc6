import { Injectable } from '@nestjs/common';
import { isDatabaseUnavailable } from '../database/postgres-errors.js';
import { Metrics } from '../metrics/metrics.js';
import { Problem } from '../problems/problem.js';
import { KeyRing } from './key-ring.js';
import { TokenVerifier } from './token-verifier.js';
import { UserCache } from './user-cache.js';

/** Counts accepted and failed authentication. The counters are plain numbers, read by a scrape. */
@Injectable()
export class AuthMetrics {
  accepted = 0;
  /** Counts by the code of the problem. Authentication has about ten codes. */
  private readonly failures = new Map<string, number>();
  private readonly errors = new Map<string, number>();

  constructor(metrics: Metrics, keys: KeyRing, verifier: TokenVerifier, users: UserCache) {
    metrics.counter({
      name: 'gatehouse_auth_total',
      help: 'Authentication by its result (accepted, failed, error) and error code. An error is an outage.',
      labels: ['result', 'code'],
      read: () => [
        { labels: { result: 'accepted', code: 'OK' }, value: this.accepted },
        ...samplesOf('failed', this.failures),
        ...samplesOf('error', this.errors),
      ],
    });
    metrics.counter({
      name: 'gatehouse_cache_total',
      help: 'Valid tokens that were cached or not, and users that were cached or queried.',
      labels: ['cache', 'result'],
      read: () =>
        Object.entries({ token: verifier.lookups, user: users.lookups }).flatMap(
          ([cache, { hits, misses }]) => [
            { labels: { cache, result: 'hit' }, value: hits },
            { labels: { cache, result: 'miss' }, value: misses },
          ],
        ),
    });
    metrics.gauge({
      name: 'gatehouse_jwks_age_seconds',
      help: 'The time since the last successful fetch of the key set. +Inf before the first one.',
      read: () => [{ value: keys.ageMs / 1000 }],
    });
    metrics.gauge({
      name: 'gatehouse_jwks_keys',
      help: 'The number of keys that verify tokens now.',
      read: () => [{ value: keys.status().keys }],
    });
  }

  failed(error: unknown): void {
    if (error instanceof Problem && error.getStatus() < 500) increment(this.failures, error.code);
    else increment(this.errors, isOutage(error) ? 'SERVICE_UNAVAILABLE' : 'INTERNAL_ERROR');
  }
}

function isOutage(error: unknown): boolean {
  return error instanceof Problem || isDatabaseUnavailable(error);
}

function increment(counts: Map<string, number>, code: string): void {
  counts.set(code, (counts.get(code) ?? 0) + 1);
}

function samplesOf(result: string, counts: Map<string, number>) {
  return [...counts].map(([code, value]) => ({ labels: { result, code }, value }));
}
