import { Injectable } from '@nestjs/common';
import { normalizeIp } from '@nestjs/throttler';
import type { NextFunction, Request, Response } from 'express';
import { LRUCache } from 'lru-cache';
import { Environment } from '../config/environment.js';
import { Metrics } from '../metrics/metrics.js';
import { problem } from '../problems/problem.js';
import { clientAddress } from '../http/client-address.js';

/** Requests are counted per user, and without an authenticated user per address. */
export interface RateLimitKey {
  kind: 'user' | 'address';
  id: string;
}

/** IPv6 addresses count by /64, because one household or machine usually has a whole /64. */
export function addressKey(request: Request): RateLimitKey {
  return { kind: 'address', id: normalizeIp(clientAddress(request) ?? 'unknown') };
}

export function userKey(id: string): RateLimitKey {
  return { kind: 'user', id };
}

export interface RateLimitPolicy {
  /** Set for a route with its own limit, which is counted separately. */
  route?: string;
  limit: number;
  windowMs: number;
}

interface Window {
  count: number;
  endsAt: number;
}

/**
 * Counts requests in fixed windows that start with the first request of a key. The counters are in
 * memory, so each replica counts separately. They are bounded and need no timer, so a flood of
 * addresses costs no more.
 */
@Injectable()
export class RateLimiter {
  private readonly windows = new LRUCache<string, Window>({ max: MAX_KEYS });
  /**
   * Exhausted windows, kept here too because a flood of new addresses evicts windows from the cache
   * above. An eviction here takes 10,000 other exhausted windows within the same minute.
   */
  private readonly exhausted = new LRUCache<string, Window>({ max: MAX_EXHAUSTED });
  readonly defaultPolicy: RateLimitPolicy;
  /** Separate, so that failures of an old token do not refuse the user's valid requests. */
  private readonly failurePolicy: RateLimitPolicy;

  /** For the metrics: the refused requests. */
  private readonly refused = { user: 0, address: 0 };

  constructor(environment: Environment, metrics: Metrics) {
    this.defaultPolicy = { limit: environment.RATE_LIMIT_PER_MINUTE, windowMs: MINUTE_MS };
    this.failurePolicy = { ...this.defaultPolicy, route: 'failed' };
    metrics.counter({
      name: 'gatehouse_rate_limited_total',
      help: 'Requests that a rate limit refused, by what the limit counts: a user or an address.',
      labels: ['kind'],
      read: () =>
        Object.entries(this.refused).map(([kind, value]) => ({ labels: { kind }, value })),
    });
  }

  /** Whether the failure limit is reached. */
  isExhausted(client: RateLimitKey): boolean {
    return this.exhaustedWindow(client, performance.now()) !== undefined;
  }

  /** Throws RATE_LIMITED if the failure limit is reached. Counts nothing. */
  assertFailuresBelowLimit(client: RateLimitKey, response: Response): void {
    const now = performance.now();
    const window = this.exhaustedWindow(client, now);
    if (!window) return;
    setRateLimitHeaders(response, client, this.failurePolicy, window, now);
    throw this.refuse(client, window, now);
  }

  /** Counts one failure. Never throws, because the response already is an error. */
  countFailure(client: RateLimitKey, response: Response): void {
    this.increment(client, response, this.failurePolicy);
  }

  /** Counts one request, sets the rate limit headers, and throws RATE_LIMITED above the limit. */
  count(client: RateLimitKey, response: Response, policy = this.defaultPolicy): void {
    const window = this.increment(client, response, policy);
    if (window && window.count > policy.limit) throw this.refuse(client, window, performance.now());
  }

  /** Middleware that counts by address, for paths that no guard covers. */
  readonly countAddress = (request: Request, response: Response, next: NextFunction): void => {
    this.count(addressKey(request), response);
    next();
  };

  private refuse({ kind }: RateLimitKey, window: Window, now: number) {
    this.refused[kind] += 1;
    return problem('RATE_LIMITED', {
      headers: { 'Retry-After': String(secondsLeft(window, now)) },
    });
  }

  private increment(
    client: RateLimitKey,
    response: Response,
    policy: RateLimitPolicy,
  ): Window | undefined {
    if (policy.limit === 0) return undefined;
    const now = performance.now();
    const key = keyOf(client, policy);
    const window = this.currentWindow(key, policy, now);
    window.count += 1;
    if (window.count === policy.limit) this.exhausted.set(key, window);
    setRateLimitHeaders(response, client, policy, window, now);
    return window;
  }

  private currentWindow(key: string, { windowMs }: RateLimitPolicy, now: number): Window {
    const window = this.windows.get(key) ?? this.exhausted.get(key);
    if (window && window.endsAt > now) return window;
    const started = { count: 0, endsAt: now + windowMs };
    this.windows.set(key, started);
    return started;
  }

  private exhaustedWindow(client: RateLimitKey, now: number): Window | undefined {
    const window = this.exhausted.get(keyOf(client, this.failurePolicy));
    return window && window.endsAt > now ? window : undefined;
  }
}

const MINUTE_MS = 60_000;
const MAX_KEYS = 100_000;
const MAX_EXHAUSTED = 10_000;

function keyOf({ kind, id }: RateLimitKey, { route }: RateLimitPolicy): string {
  return route === undefined ? `${kind} ${id}` : `${kind} ${id} ${route}`;
}

/** Sets the fields of draft-ietf-httpapi-ratelimit-headers. */
function setRateLimitHeaders(
  response: Response,
  { kind }: RateLimitKey,
  { limit, windowMs }: RateLimitPolicy,
  window: Window,
  now: number,
): void {
  const remaining = Math.max(0, limit - window.count);
  response.setHeader('RateLimit-Policy', `"${kind}";q=${limit};w=${windowMs / 1000}`);
  response.setHeader('RateLimit', `"${kind}";r=${remaining};t=${secondsLeft(window, now)}`);
}

function secondsLeft({ endsAt }: Window, now: number): number {
  // Rounds first: adding 60,000 to a fractional time and subtracting it may give slightly more.
  return Math.max(1, Math.ceil(Math.round(endsAt - now) / 1000));
}
