import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { Request, Response } from 'express';
import { Problem } from '../common/problem.js';
import { addressOf, type Counted, RateLimits, userOf } from '../common/rate-limits.js';
import { AuthEvents } from './auth-events.js';
import { PUBLIC, ROLES, SELF, VERIFIED } from './decorators.js';
import { JwtStrategy } from './jwt.strategy.js';

/** Before every route: private, unless it says `@Public()`. */
@Injectable()
export class AuthGuard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    private readonly strategy: JwtStrategy,
    private readonly events: AuthEvents,
    private readonly limits: RateLimits,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const target = [context.getHandler(), context.getClass()];
    if (this.reflector.getAllAndOverride<boolean>(PUBLIC, target) && !this.asksMore(context)) {
      return true;
    }

    const request = context.switchToHttp().getRequest<Request>();
    const response = context.switchToHttp().getResponse<Response>();
    const asking = this.whoAsks(request);
    this.limits.refuseExhausted(asking, response);
    try {
      request.principal = await this.strategy.decide(request);
    } catch (error) {
      this.events.failed(error, request);
      if (isRefusal(error)) this.limits.count(asking, response);
      throw error;
    }
    this.events.accepted(request.principal, request);
    return true;
  }

  /**
   * Guessing costs us a signature or a query each time, so it is counted before anything is looked at:
   * by address, where no token proven before says who it is. Others at that address go on with theirs.
   */
  private whoAsks(request: Request): Counted {
    const token = this.strategy.recall(request);
    return token ? userOf(token.subject) : addressOf(request);
  }

  /** A route that asks for a role is not public, whatever its class says. */
  private asksMore(context: ExecutionContext): boolean {
    const handler = context.getHandler();
    return [ROLES, SELF, VERIFIED].some(
      (demand) => this.reflector.get(demand, handler) !== undefined,
    );
  }
}

/** An outage is nobody's failure. */
function isRefusal(error: unknown): boolean {
  return error instanceof Problem && error.getStatus() < 500;
}
