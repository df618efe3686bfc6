import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CpuBudget } from '../rate-limit/cpu-budget.js';
import { Problem } from '../problems/problem.js';
import { addressKey, RateLimiter, userKey } from '../rate-limit/rate-limiter.js';
import { AuthEvents } from './auth-events.js';
import { routeAccess } from '../access/route-access.js';
import { JwtStrategy } from './jwt.strategy.js';
import type { Principal, VerifiedToken } from '../access/principal.js';

/** Before every route: private, unless it says `@Public()`. */
@Injectable()
export class AuthGuard implements CanActivate {
  /** For the signatures of addresses that have used up their failures: all of them share it. */
  private readonly signatureBudget = new CpuBudget(0.1);
  private readonly failedTokens = new WeakSet<VerifiedToken>();

  constructor(
    private readonly strategy: JwtStrategy,
    private readonly events: AuthEvents,
    private readonly limits: RateLimiter,
  ) {}

  canActivate(context: ExecutionContext): true | Promise<true> {
    if (routeAccess(context).isPublic) return true;
    const request = context.switchToHttp().getRequest<Request>();
    const response = context.switchToHttp().getResponse<Response>();

    const token = this.strategy.getCachedToken(request);
    const principal = token && this.strategy.authenticateFromCache(token);
    if (principal) return this.accept(principal, request);
    return this.authenticate(request, response, token ?? this.strategy.getVerifiedToken(request));
  }

  /**
   * Failures are counted, because each costs a signature or a query: those of a genuine token on its
   * subject, all others on the address. Neither count refuses a good token:
   * - A subject that is exhausted has only those tokens refused that have failed before.
   * - An address that is exhausted has signatures verified within a CPU budget.
   */
  private async authenticate(
    request: Request,
    response: Response,
    known: VerifiedToken | undefined,
  ): Promise<true> {
    this.events.warnAboutIgnoredProxy(request);
    if (known && this.failedTokens.has(known)) {
      this.limits.assertFailuresBelowLimit(userKey(known.subject), response);
    }
    const address = addressKey(request);
    const isExhausted = !known && this.limits.isExhausted(address);
    if (isExhausted) request.signatureBudget = this.signatureBudget;
    try {
      const principal = await this.strategy.authenticateRequest(request);
      if (known) this.failedTokens.delete(known);
      return this.accept(principal, request);
    } catch (error) {
      if (isFailure(error)) {
        const token = known ?? this.strategy.getVerifiedToken(request);
        if (token) this.failedTokens.add(token);
        this.limits.countFailure(token ? userKey(token.subject) : address, response);
        if (isExhausted && !token) this.limits.assertFailuresBelowLimit(address, response);
      }
      this.events.failed(error, request);
      throw error;
    }
  }

  private accept(principal: Principal, request: Request): true {
    request.principal = principal;
    this.events.accepted(principal, request);
    return true;
  }
}

/** An outage is not a failure of the caller; a missing token costs nothing; 429 says nothing of the token. */
function isFailure(error: unknown): boolean {
  if (!(error instanceof Problem) || error.getStatus() >= 500) return false;
  return error.code !== 'AUTH_MISSING_TOKEN' && error.code !== 'RATE_LIMITED';
}
