import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CpuBudget } from '../rate-limit/cpu-budget.js';
import { Problem } from '../problems/problem.js';
import { addressKey, RateLimiter, userKey } from '../rate-limit/rate-limiter.js';
import { AuthEvents } from './auth-events.js';
import { routeAccess } from '../access/route-access.js';
import { JwtStrategy } from './jwt.strategy.js';
import type { Principal, VerifiedToken } from '../access/principal.js';

/** Runs before every route. A route is private unless it has `@Public()`. */
@Injectable()
export class AuthGuard implements CanActivate {
  /** The CPU budget for signatures. All addresses with an exhausted failure limit share it. */
  private readonly signatureBudget = new CpuBudget(0.1);
  /** The time of the last check of each token that failed, in milliseconds. */
  private readonly failedTokens = new WeakMap<VerifiedToken, number>();

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
   * Counts failures, because each costs a signature check or a query. A failure of a token with a
   * verified signature counts for its subject, every other failure for the address. Neither limit
   * refuses a valid token:
   * - For an exhausted subject, only tokens that failed in the last seconds are refused. A token
   *   can become valid again, for example after a ban.
   * - For an exhausted address, signatures are verified within a CPU budget.
   */
  private async authenticate(
    request: Request,
    response: Response,
    verified: VerifiedToken | undefined,
  ): Promise<true> {
    this.events.warnAboutIgnoredProxy(request);
    const now = performance.now();
    const checkedAt = verified && this.failedTokens.get(verified);
    if (verified && checkedAt !== undefined) {
      if (now - checkedAt < RECHECK_MS) {
        this.limits.assertFailuresBelowLimit(userKey(verified.subject), response);
      }
      // Set before the check, so that concurrent requests are not checked, too.
      this.failedTokens.set(verified, now);
    }
    const address = addressKey(request);
    const isExhausted = !verified && this.limits.isExhausted(address);
    if (isExhausted) request.signatureBudget = this.signatureBudget;
    try {
      const principal = await this.strategy.authenticateRequest(request);
      if (verified) this.failedTokens.delete(verified);
      return this.accept(principal, request);
    } catch (error) {
      if (isFailure(error)) {
        const token = verified ?? this.strategy.getVerifiedToken(request);
        if (token) this.failedTokens.set(token, now);
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

/** How long an exhausted subject waits until the same failed token is checked again. */
const RECHECK_MS = 5000;

/** Excludes outages, missing tokens (they cost nothing) and 429 (the token was not checked). */
function isFailure(error: unknown): boolean {
  if (!(error instanceof Problem) || error.getStatus() >= 500) return false;
  return error.code !== 'AUTH_MISSING_TOKEN' && error.code !== 'RATE_LIMITED';
}
