import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import {
  InjectThrottlerOptions,
  InjectThrottlerStorage,
  ThrottlerGuard,
  type ThrottlerModuleOptions,
  type ThrottlerRequest,
  type ThrottlerStorage,
} from '@nestjs/throttler';
import { memoizePerRoute } from '../http/memoize-per-route.js';
import { requestOf, responseOf } from '../http/request-of.js';
import { addressKey, type RateLimitPolicy, RateLimiter, userKey } from './rate-limiter.js';

/** What the throttler resolves for a route whose decorators set no limit or no window. */
const UNSET = -1;

/** The options of the `ThrottlerModule`. */
export const THROTTLER_OPTIONS: ThrottlerModuleOptions = [{ limit: UNSET, ttl: UNSET }];

/**
 * Lets the Nest throttler read `@Throttle()` and `@SkipThrottle()`, but counts in our RateLimiter.
 * The throttler's own storage keeps the time of every request of the last minute. Its headers
 * follow an older draft.
 */
@Injectable()
export class DecoratedRoutes extends ThrottlerGuard {
  constructor(
    @InjectThrottlerOptions() options: ThrottlerModuleOptions,
    @InjectThrottlerStorage() storage: ThrottlerStorage,
    reflector: Reflector,
    private readonly limits: RateLimiter,
  ) {
    super(options, storage, reflector);
  }

  protected override handleRequest({ context, limit, ttl }: ThrottlerRequest): Promise<boolean> {
    const { defaultPolicy } = this.limits;
    if (limit === UNSET && ttl === UNSET) {
      routeOf(context).usesDefaultLimit = true;
      count(this.limits, context);
    } else {
      count(this.limits, context, {
        route: `${context.getClass().name}.${context.getHandler().name}`,
        limit: limit === UNSET ? defaultPolicy.limit : limit,
        windowMs: ttl === UNSET ? defaultPolicy.windowMs : ttl,
      });
    }
    return Promise.resolve(true);
  }
}

/**
 * Runs after the AuthGuard, so that it can count by user: several users may share one address. Most
 * routes have the default limit. After their first request they skip the throttler, which is
 * asynchronous and reads the metadata for each request.
 */
@Injectable()
export class RateLimitGuard implements CanActivate {
  constructor(
    private readonly limits: RateLimiter,
    private readonly decorated: DecoratedRoutes,
  ) {}

  canActivate(context: ExecutionContext): true | Promise<boolean> {
    if (!routeOf(context).usesDefaultLimit) return this.decorated.canActivate(context);
    count(this.limits, context);
    return true;
  }
}

const routeOf = memoizePerRoute(() => ({ usesDefaultLimit: false }));

function count(limits: RateLimiter, context: ExecutionContext, policy?: RateLimitPolicy): void {
  const request = requestOf(context);
  // Messages of a WebSocket are not counted.
  if (!request) return;
  const key = request.userId === undefined ? addressKey(request) : userKey(request.userId);
  limits.count(key, responseOf(request), policy);
}
