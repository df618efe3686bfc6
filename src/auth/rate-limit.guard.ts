import { type ExecutionContext, Injectable } from '@nestjs/common';
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
import { addressOf, MINUTE_MS, RateLimits, userOf } from '../common/rate-limits.js';
import { Environment } from '../config/environment.js';

/**
 * After the AuthGuard, so that it knows whom to count: an office behind one address is not one caller.
 * The throttler reads what `@Throttle()` and `@SkipThrottle()` say. The counting is ours: its own storage
 * keeps the time of every request of the last minute, and its headers are of an older form.
 */
@Injectable()
export class RateLimitGuard extends ThrottlerGuard {
  constructor(
    @InjectThrottlerOptions() options: ThrottlerModuleOptions,
    @InjectThrottlerStorage() storage: ThrottlerStorage,
    reflector: Reflector,
    private readonly limits: RateLimits,
    private readonly environment: Environment,
  ) {
    super(options, storage, reflector);
  }

  protected override handleRequest({ context, limit, ttl }: ThrottlerRequest): Promise<boolean> {
    const request = context.switchToHttp().getRequest<Request>();
    const response = context.switchToHttp().getResponse<Response>();
    const { principal } = request;
    const who = principal ? userOf(principal.user.id) : addressOf(request);
    const isUsual = limit === this.environment.RATE_LIMIT_PER_MINUTE && ttl === MINUTE_MS;
    if (isUsual) this.limits.count(who, response);
    else this.limits.count(who, response, { route: routeOf(context), limit, milliseconds: ttl });
    return Promise.resolve(true);
  }
}

/** A route with an allowance of its own is counted by itself. */
function routeOf(context: ExecutionContext): string {
  return `${context.getClass().name}.${context.getHandler().name}`;
}
