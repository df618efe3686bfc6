import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request, Response } from 'express';
import { Problem } from '../common/problem.js';
import { addressOf, type Counted, RateLimits, userOf } from '../common/rate-limits.js';
import { AuthEvents } from './auth-events.js';
import { demandsOf } from './demands.js';
import { JwtStrategy } from './jwt.strategy.js';
import type { Principal } from './principal.js';
import type { VerifiedToken } from './token-verifier.js';

/** Before every route: private, unless it says `@Public()`. */
@Injectable()
export class AuthGuard implements CanActivate {
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
    return this.decide(request, response, token ? ownerOf(token) : addressOf(request));
  }

  /**
   * Guessing costs us a signature or a query each time, so whoever fails is counted, and refused before
   * anything is looked at: by address, where no token proven before says who it is. Others at that
   * address go on with theirs, and so does the user whose ended session somebody still tries.
   */
  private async decide(request: Request, response: Response, asking: Counted): Promise<true> {
    this.limits.refuseExhausted(asking, response);
    try {
      return this.accept(await this.strategy.decide(request), request);
    } catch (error) {
      this.events.failed(error, request);
      if (isRefusal(error)) this.limits.countFailure(asking, response);
      throw error;
    }
  }

  private accept(principal: Principal, request: Request): true {
    request.principal = principal;
    this.events.accepted(principal, request);
    return true;
  }
}

/** A user in one session, or by one token that names none. */
function ownerOf({ subject, sessionId, issuedAt }: VerifiedToken): Counted {
  return userOf(`${subject} ${sessionId ?? issuedAt}`);
}

/** An outage is nobody's failure. */
function isRefusal(error: unknown): boolean {
  return error instanceof Problem && error.getStatus() < 500;
}
