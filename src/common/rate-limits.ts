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
  private readonly usual: Allowance;
  /** Apart, so that good requests are not refused for what others did with an old token of the same user. */
  private readonly failed: Allowance;

  constructor(environment: Environment) {
    this.usual = { limit: environment.RATE_LIMIT_PER_MINUTE, milliseconds: MINUTE_MS };
    this.failed = { ...this.usual, route: 'failed' };
  }

  /** Refuses whoever has failed too often, before anything is done for them. Counts nothing. */
  refuseExhausted(who: Counted, response: Response): void {
    const { limit } = this.failed;
    if (limit === 0) return;
    const now = performance.now();
    const window = this.windows.get(keyOf(who, this.failed));
    if (!window || window.count < limit || window.endsAt <= now) return;
    say(response, who, this.failed, window, now);
    throw tooMany(window, now);
  }

  countFailure(who: Counted, response: Response): void {
    this.count(who, response, this.failed);
  }

  /** Counts one request, says in the headers what is left, and refuses it where that is too many. */
  count(who: Counted, response: Response, allowance = this.usual): void {
    if (allowance.limit === 0) return;
    const now = performance.now();
    const window = this.current(keyOf(who, allowance), allowance, now);
    window.count += 1;
    say(response, who, allowance, window, now);
    if (window.count > allowance.limit) throw tooMany(window, now);
  }

  /** Where no guard does it. */
  readonly countAddress = (request: Request, response: Response, next: NextFunction): void => {
    this.count(addressOf(request), response);
    next();
  };

  private current(key: string, { milliseconds }: Allowance, now: number): Window {
    const held = this.windows.get(key);
    if (held && held.endsAt > now) return held;
    const begun = { count: 0, endsAt: now + milliseconds };
    this.windows.set(key, begun);
    return begun;
  }
}

export const MINUTE_MS = 60_000;
const MOST_COUNTED = 100_000;

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
