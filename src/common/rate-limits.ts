import { Injectable } from '@nestjs/common';
import { normalizeIp } from '@nestjs/throttler';
import type { NextFunction, Request, Response } from 'express';
import { LRUCache } from 'lru-cache';
import { Environment } from '../config/environment.js';
import { problem } from './problem.js';
import { ipOf } from './request.js';

/** Whose requests are counted together: a user's, or those of an address that nobody is known at. */
export interface Counted {
  kind: 'user' | 'address';
  id: string;
}

/** IPv6 by /64, which is what one household or one machine is given. */
export function addressOf(request: Request): Counted {
  return { kind: 'address', id: normalizeIp(ipOf(request) ?? 'unknown') };
}

export function userOf(id: string): Counted {
  return { kind: 'user', id };
}

export interface Allowance {
  /** What is counted apart, where a route has an allowance of its own. */
  route?: string;
  limit: number;
  milliseconds: number;
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
export class RateLimits {
  private readonly windows = new LRUCache<string, Window>({ max: MOST_COUNTED });
  /**
   * The windows that are used up, once more: a flood of new addresses evicts windows from the other cache.
   * To evict one from here, as many others must be used up within the same minute.
   */
  private readonly usedUp = new LRUCache<string, Window>({ max: MAX_USED_UP });
  private readonly usual: Allowance;
  /** Apart, so that good requests are not refused for what others did with an old token of the same user. */
  private readonly failed: Allowance;

  constructor(environment: Environment) {
    this.usual = { limit: environment.RATE_LIMIT_PER_MINUTE, milliseconds: MINUTE_MS };
    this.failed = { ...this.usual, route: 'failed' };
  }

  /** Whether there were too many failures. */
  isExhausted(who: Counted): boolean {
    return this.exhaustedWindow(who, performance.now()) !== undefined;
  }

  /** Refuses a caller who has failed too often. Counts nothing. */
  refuseExhausted(who: Counted, response: Response): void {
    const now = performance.now();
    const window = this.exhaustedWindow(who, now);
    if (!window) return;
    say(response, who, this.failed, window, now);
    throw tooMany(window, now);
  }

  /** Counts one failure. It refuses nothing: this answer is the failure itself. */
  countFailure(who: Counted, response: Response): void {
    this.addTo(who, response, this.failed);
  }

  /** Counts one request, says in the headers what is left, and refuses it where that is too many. */
  count(who: Counted, response: Response, allowance = this.usual): void {
    const window = this.addTo(who, response, allowance);
    if (window && window.count > allowance.limit) throw tooMany(window, performance.now());
  }

  /** Where no guard does it. */
  readonly countAddress = (request: Request, response: Response, next: NextFunction): void => {
    this.count(addressOf(request), response);
    next();
  };

  private addTo(who: Counted, response: Response, allowance: Allowance): Window | undefined {
    if (allowance.limit === 0) return undefined;
    const now = performance.now();
    const key = keyOf(who, allowance);
    const window = this.current(key, allowance, now);
    window.count += 1;
    if (window.count === allowance.limit) this.usedUp.set(key, window);
    say(response, who, allowance, window, now);
    return window;
  }

  private current(key: string, { milliseconds }: Allowance, now: number): Window {
    const held = this.windows.get(key) ?? this.usedUp.get(key);
    if (held && held.endsAt > now) return held;
    const begun = { count: 0, endsAt: now + milliseconds };
    this.windows.set(key, begun);
    return begun;
  }

  private exhaustedWindow(who: Counted, now: number): Window | undefined {
    const window = this.usedUp.get(keyOf(who, this.failed));
    return window && window.endsAt > now ? window : undefined;
  }
}

export const MINUTE_MS = 60_000;
const MOST_COUNTED = 100_000;
const MAX_USED_UP = 10_000;

function keyOf({ kind, id }: Counted, { route }: Allowance): string {
  return route === undefined ? `${kind} ${id}` : `${kind} ${id} ${route}`;
}

/** The fields of draft-ietf-httpapi-ratelimit-headers: what is allowed, what is left, for how long. */
function say(
  response: Response,
  { kind }: Counted,
  { limit, milliseconds }: Allowance,
  window: Window,
  now: number,
): void {
  const left = Math.max(0, limit - window.count);
  response.setHeader('RateLimit-Policy', `"${kind}";q=${limit};w=${milliseconds / 1000}`);
  response.setHeader('RateLimit', `"${kind}";r=${left};t=${secondsLeft(window, now)}`);
}

function tooMany(window: Window, now: number) {
  return problem('RATE_LIMITED', { headers: { 'Retry-After': String(secondsLeft(window, now)) } });
}

function secondsLeft({ endsAt }: Window, now: number): number {
  // Whole milliseconds first: 60,000 of them added to a time and taken off again may be a hair more.
  return Math.max(1, Math.ceil(Math.round(endsAt - now) / 1000));
}
