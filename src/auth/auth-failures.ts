import { Injectable } from '@nestjs/common';
import type { Request, Response } from 'express';
import type { VerifiedToken } from '../access/principal.js';
import { Problem } from '../problems/problem.js';
import { CpuBudget } from '../rate-limit/cpu-budget.js';
import { addressKey, RateLimiter, userKey } from '../rate-limit/rate-limiter.js';
import { AuthEvents } from './auth-events.js';
import { TokenVerifier } from './token-verifier.js';

declare module 'express-serve-static-core' {
  interface Request {
    /** If set, a signature is verified only while this budget has CPU time left. */
    signatureBudget?: CpuBudget;
  }
}

/**
 * Counts failures, because each costs a signature check or a query. A failure of a token with a
 * verified signature counts for its subject, every other failure for the address. Neither limit
 * refuses a valid token:
 * - For an exhausted subject, only tokens that failed in the last seconds are refused. A token
 *   can become valid again, for example after a ban.
 * - For an exhausted address, signatures are verified within a CPU budget.
 */
@Injectable()
export class AuthFailures {
  /** The CPU budget for signatures. All addresses with an exhausted failure limit share it. */
  private readonly signatureBudget = new CpuBudget(0.1);
  /** The time of the last check of each token that failed, in milliseconds. */
  private readonly failedTokens = new WeakMap<VerifiedToken, number>();

  constructor(
    private readonly verifier: TokenVerifier,
    private readonly limits: RateLimiter,
    private readonly events: AuthEvents,
  ) {}

  /** Runs the authentication of a request within the limits. Counts and logs its failure. */
  async limit<Result>(
    request: Request,
    response: Response,
    authenticate: () => Promise<Result>,
  ): Promise<Result> {
    const now = performance.now();
    const known = this.verifiedToken(request);
    if (known) this.assertMayCheck(known, now, response);
    const address = addressKey(request);
    const isExhausted = !known && this.limits.isExhausted(address);
    if (isExhausted) request.signatureBudget = this.signatureBudget;
    try {
      const result = await authenticate();
      if (known) this.failedTokens.delete(known);
      return result;
    } catch (error) {
      if (isFailure(error)) {
        const token = known ?? this.verifiedToken(request);
        if (token) this.failedTokens.set(token, now);
        this.limits.countFailure(token ? userKey(token.subject) : address, response);
        if (isExhausted && !token) this.limits.assertFailuresBelowLimit(address, response);
      }
      this.events.failed(error, request);
      throw error;
    }
  }

  private assertMayCheck(token: VerifiedToken, now: number, response: Response): void {
    const checkedAt = this.failedTokens.get(token);
    if (checkedAt === undefined) return;
    if (now - checkedAt < RECHECK_MS) {
      this.limits.assertFailuresBelowLimit(userKey(token.subject), response);
    }
    // Set before the check, so that concurrent requests are not checked, too.
    this.failedTokens.set(token, now);
  }

  /** The token of the request if its signature was verified before, even if it is expired. */
  private verifiedToken({ bearer }: Request): VerifiedToken | undefined {
    return bearer && this.verifier.getVerified(bearer.digest);
  }
}

/** How long an exhausted subject waits until the same failed token is checked again. */
const RECHECK_MS = 5000;

/** Excludes outages, missing tokens (they cost nothing) and 429 (the token was not checked). */
function isFailure(error: unknown): boolean {
  if (!(error instanceof Problem) || error.getStatus() >= 500) return false;
  return error.code !== 'AUTH_MISSING_TOKEN' && error.code !== 'RATE_LIMITED';
}
