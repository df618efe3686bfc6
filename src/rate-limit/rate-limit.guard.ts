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
import type { Request, Response } from 'express';
import { memoizePerRoute } from '../http/memoize-per-route.js';
import { addressKey, type RateLimitPolicy, RateLimiter, userKey } from './rate-limiter.js';

/**
 * What `@Throttle()` and `@SkipThrottle()` say of a route, read by the throttler that they come from. The
 * counting is ours: its own storage keeps the time of every request of the last minute, and its headers
 * are of an older form.
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
    const route = `${context.getClass().name}.${context.getHandler().name}`;
    count(this.limits, context, { route, limit, windowMs: ttl });
    return Promise.resolve(true);
  }
}

/**
 * After the AuthGuard, so that it knows whom to count: an office behind one address is not one caller.
 * Most routes wear none of the throttler's decorators, and need not wait for what it makes of them.
 */
@Injectable()
export class RateLimitGuard implements CanActivate {
  constructor(
    private readonly limits: RateLimiter,
    private readonly decorated: DecoratedRoutes,
  ) {}

  canActivate(context: ExecutionContext): true | Promise<boolean> {
    if (isDecorated(context)) return this.decorated.canActivate(context);
    count(this.limits, context);
    return true;
  }
}

const isDecorated = memoizePerRoute((controller, handler) =>
  [handler, controller].some((target) =>
    Reflect.getMetadataKeys(target).some((key) => String(key).startsWith('THROTTLER:')),
  ),
);

function count(limits: RateLimiter, context: ExecutionContext, allowance?: RateLimitPolicy): void {
  const http = context.switchToHttp();
  const request = http.getRequest<Request>();
  const who = request.userId === undefined ? addressKey(request) : userKey(request.userId);
  limits.count(who, http.getResponse<Response>(), allowance);
}
