import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CpuBudget } from '../common/cpu-budget.js';
import { Problem } from '../common/problem.js';
import { addressOf, RateLimits, userOf } from '../common/rate-limits.js';
import { AuthEvents } from './auth-events.js';
import { demandsOf } from './demands.js';
import { JwtStrategy } from './jwt.strategy.js';
import type { Principal } from './principal.js';
import type { VerifiedToken } from './token-verifier.js';

/** Before every route: private, unless it says `@Public()`. */
@Injectable()
export class AuthGuard implements CanActivate {
  /** For the signatures of addresses that have used up their failures: all of them share it. */
  private readonly signatureBudget = new CpuBudget(0.1);
  private readonly refused = new WeakSet<VerifiedToken>();

  constructor(
    private readonly strategy: JwtStrategy,
    private readonly events: AuthEvents,
    private readonly limits: RateLimits,
  ) {}

  canActivate(context: ExecutionContext): true | Promise<true> {
    if (demandsOf(context).isPublic) return true;
    const request = context.switchToHttp().getRequest<Request>();
    const response = context.switchToHttp().getResponse<Response>();

    const token = this.strategy.recall(request);
    const principal = token && this.strategy.vouchFor(token);
    if (principal) return this.accept(principal, request);
    return this.decide(request, response, token ?? this.strategy.proven(request));
  }

  /**
   * Failures are counted, because each costs a signature or a query: those of a genuine token on its
   * subject, all others on the address. Neither count refuses a good token:
   * - A subject that is exhausted has only those tokens refused that have failed before.
   * - An address that is exhausted has signatures verified within a CPU budget.
   */
  private async decide(
    request: Request,
    response: Response,
    known: VerifiedToken | undefined,
  ): Promise<true> {
    this.events.proxyIgnored(request);
    if (known && this.refused.has(known)) {
      this.limits.refuseExhausted(userOf(known.subject), response);
    }
    const address = addressOf(request);
    const isExhausted = !known && this.limits.isExhausted(address);
    if (isExhausted) request.signatureBudget = this.signatureBudget;
    try {
      const principal = await this.strategy.decide(request);
      if (known) this.refused.delete(known);
      return this.accept(principal, request);
    } catch (error) {
      if (isFailure(error)) {
        const token = known ?? this.strategy.proven(request);
        if (token) this.refused.add(token);
        this.limits.countFailure(token ? userOf(token.subject) : address, response);
        if (isExhausted && !token) this.limits.refuseExhausted(address, response);
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
