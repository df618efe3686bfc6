import { Injectable } from '@nestjs/common';
import { normalizeIp } from '@nestjs/throttler';
import type { NextFunction, Request, Response } from 'express';
import { LRUCache } from 'lru-cache';
import { Environment } from '../config/environment.js';
import { problem } from '../problems/problem.js';
import { clientAddress } from '../http/client-address.js';

/** Whose requests are counted together: a user's, or those of an address that nobody is known at. */
export interface RateLimitKey {
  kind: 'user' | 'address';
  id: string;
}

/** IPv6 by /64, which is what one household or one machine is given. */
export function addressKey(request: Request): RateLimitKey {
  return { kind: 'address', id: normalizeIp(clientAddress(request) ?? 'unknown') };
}

export function userKey(id: string): RateLimitKey {
  return { kind: 'user', id };
}

export interface RateLimitPolicy {
  /** What is counted apart, where a route has an allowance of its own. */
  route?: string;
  limit: number;
  windowMs: number;
}

interface Window {
  count: number;
  endsAt: number;
}

/**
 * How often somebody has asked, in windows that begin with a first request. In memory, so each replica
 * counts by itself; bounded, and without a timer, so that a flood of addresses costs nothing more.
 */
@Injectable()
export class RateLimiter {
  private readonly windows = new LRUCache<string, Window>({ max: MAX_KEYS });
  /**
   * The windows that are used up, once more: a flood of new addresses evicts windows from the other cache.
   * To evict one from here, as many others must be used up within the same minute.
   */
  private readonly exhausted = new LRUCache<string, Window>({ max: MAX_EXHAUSTED });
  private readonly defaultPolicy: RateLimitPolicy;
  /** Apart, so that good requests are not refused for what others did with an old token of the same user. */
  private readonly failurePolicy: RateLimitPolicy;

  constructor(environment: Environment) {
    this.defaultPolicy = { limit: environment.RATE_LIMIT_PER_MINUTE, windowMs: MINUTE_MS };
    this.failurePolicy = { ...this.defaultPolicy, route: 'failed' };
  }

  /** Whether there were too many failures. */
  isExhausted(who: RateLimitKey): boolean {
    return this.exhaustedWindow(who, performance.now()) !== undefined;
  }

  /** Refuses a caller who has failed too often. Counts nothing. */
  assertFailuresBelowLimit(who: RateLimitKey, response: Response): void {
    const now = performance.now();
    const window = this.exhaustedWindow(who, now);
    if (!window) return;
    setRateLimitHeaders(response, who, this.failurePolicy, window, now);
    throw rateLimited(window, now);
  }

  /** Counts one failure. It refuses nothing: this answer is the failure itself. */
  countFailure(who: RateLimitKey, response: Response): void {
    this.increment(who, response, this.failurePolicy);
  }

  /** Counts one request, says in the headers what is left, and refuses it where that is too many. */
  count(who: RateLimitKey, response: Response, allowance = this.defaultPolicy): void {
    const window = this.increment(who, response, allowance);
    if (window && window.count > allowance.limit) throw rateLimited(window, performance.now());
  }

  /** Where no guard does it. */
  readonly countAddress = (request: Request, response: Response, next: NextFunction): void => {
    this.count(addressKey(request), response);
    next();
  };

  private increment(
    who: RateLimitKey,
    response: Response,
    allowance: RateLimitPolicy,
  ): Window | undefined {
    if (allowance.limit === 0) return undefined;
    const now = performance.now();
    const key = keyOf(who, allowance);
    const window = this.currentWindow(key, allowance, now);
    window.count += 1;
    if (window.count === allowance.limit) this.exhausted.set(key, window);
    setRateLimitHeaders(response, who, allowance, window, now);
    return window;
  }

  private currentWindow(
    key: string,
    { windowMs: milliseconds }: RateLimitPolicy,
    now: number,
  ): Window {
    const held = this.windows.get(key) ?? this.exhausted.get(key);
    if (held && held.endsAt > now) return held;
    const begun = { count: 0, endsAt: now + milliseconds };
    this.windows.set(key, begun);
    return begun;
  }

  private exhaustedWindow(who: RateLimitKey, now: number): Window | undefined {
    const window = this.exhausted.get(keyOf(who, this.failurePolicy));
    return window && window.endsAt > now ? window : undefined;
  }
}

export const MINUTE_MS = 60_000;
const MAX_KEYS = 100_000;
const MAX_EXHAUSTED = 10_000;

function keyOf({ kind, id }: RateLimitKey, { route }: RateLimitPolicy): string {
  return route === undefined ? `${kind} ${id}` : `${kind} ${id} ${route}`;
}

/** The fields of draft-ietf-httpapi-ratelimit-headers: what is allowed, what is left, for how long. */
function setRateLimitHeaders(
  response: Response,
  { kind }: RateLimitKey,
  { limit, windowMs: milliseconds }: RateLimitPolicy,
  window: Window,
  now: number,
): void {
  const left = Math.max(0, limit - window.count);
  response.setHeader('RateLimit-Policy', `"${kind}";q=${limit};w=${milliseconds / 1000}`);
  response.setHeader('RateLimit', `"${kind}";r=${left};t=${secondsLeft(window, now)}`);
}

function rateLimited(window: Window, now: number) {
  return problem('RATE_LIMITED', { headers: { 'Retry-After': String(secondsLeft(window, now)) } });
}

function secondsLeft({ endsAt }: Window, now: number): number {
  // Whole milliseconds first: 60,000 of them added to a time and taken off again may be a hair more.
  return Math.max(1, Math.ceil(Math.round(endsAt - now) / 1000));
}
