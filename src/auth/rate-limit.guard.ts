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
import { perRoute } from '../common/per-route.js';
import { addressOf, type Allowance, RateLimits, userOf } from '../common/rate-limits.js';

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
  ) {
    super(options, storage, reflector);
  }

  override canActivate(context: ExecutionContext): Promise<boolean> {
    if (saysMore(context)) return super.canActivate(context);
    this.count(context);
    return ALLOWED;
  }

  protected override handleRequest({ context, limit, ttl }: ThrottlerRequest): Promise<boolean> {
    const route = `${context.getClass().name}.${context.getHandler().name}`;
    this.count(context, { route, limit, milliseconds: ttl });
    return ALLOWED;
  }

  private count(context: ExecutionContext, allowance?: Allowance): void {
    const http = context.switchToHttp();
    const { principal } = http.getRequest<Request>();
    const who = principal ? userOf(principal.user.id) : addressOf(http.getRequest<Request>());
    this.limits.count(who, http.getResponse<Response>(), allowance);
  }
}

const ALLOWED = Promise.resolve(true);

/** Whether the route or its controller wears a decorator of the throttler's. Most wear none. */
const saysMore = perRoute((controller, handler) =>
  [handler, controller].some((target) =>
    Reflect.getMetadataKeys(target).some((key) => String(key).startsWith('THROTTLER:')),
  ),
);
