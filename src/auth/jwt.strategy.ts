import { Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import type { Request } from 'express';
import passportJwt, { type StrategyOptionsWithoutRequest } from 'passport-jwt';
import { Environment } from '../config/environment.js';
import { type Problem, problem, RETRY_AFTER_SECONDS, unavailable } from '../problems/problem.js';
import { unauthorized } from '../problems/unauthorized.js';
import type { CpuBudget } from '../rate-limit/cpu-budget.js';
import type { Principal, VerifiedToken } from '../access/principal.js';
import { latestSessionStart } from '../access/session-rules.js';
import { UserCache } from './user-cache.js';
import type { UserWithSession, SessionLookup } from './auth.repository.js';
import { parseBearer, requireBearer } from './bearer.js';
import { InvalidTokenError } from './invalid-token.js';
import { TokenVerifier } from './token-verifier.js';
import { type Verdict, verdict } from './verdict.js';
import { isAdmin } from '../access/user-rules.js';

/**
 * passport-jwt verifies with `jsonwebtoken`, which does not support EdDSA, Better-Auth's default.
 * passport-jwt allows another verifier, but only one for the whole process. So this one has no
 * state, and receives the TokenVerifier in place of a key.
 */
Object.assign(passportJwt.Strategy, {
  JwtVerifier(
    token: string,
    verifier: Pick<TokenVerifier, 'verify'>,
    _options: unknown,
    done: (error: unknown, payload?: VerifiedToken) => void,
  ): void {
    verifier.verify(token).then((payload) => done(null, payload), done);
  },
});

declare module 'express-serve-static-core' {
  interface Request {
    /** If set, a signature is verified only while this budget has CPU time left. */
    signatureBudget?: CpuBudget;
  }
}

/** Finds the user and the session of a token, and checks that they may still use it. */
@Injectable()
export class JwtStrategy extends PassportStrategy(passportJwt.Strategy) {
  constructor(
    private readonly verifier: TokenVerifier,
    private readonly users: UserCache,
    private readonly environment: Environment,
  ) {
    super({
      jwtFromRequest: (request: Request) => requireBearer(request.headers.authorization) ?? null,
      secretOrKeyProvider: (
        { signatureBudget }: Request,
        _token: string,
        done: (error: null, key: unknown) => void,
      ) =>
        done(
          null,
          signatureBudget
            ? { verify: (token: string) => verifier.verify(token, signatureBudget) }
            : verifier,
        ),
    } as StrategyOptionsWithoutRequest);
  }

  /** Returns the request's token if it is cached and within its lifetime. Never throws. */
  getCachedToken({ headers: { authorization } }: Request): VerifiedToken | undefined {
    const token = parseBearer(authorization);
    return token ? this.verifier.getCached(token) : undefined;
  }

  /** Returns the request's token if it is cached, even if it is expired. Never throws. */
  getVerifiedToken({ headers: { authorization } }: Request): VerifiedToken | undefined {
    const token = parseBearer(authorization);
    return token ? this.verifier.getVerified(token) : undefined;
  }

  /** Authenticates a request through Passport. Rejects with the problem for the response. */
  async authenticateRequest(request: Request): Promise<Principal> {
    try {
      return await this.runPassport(request);
    } catch (error) {
      throw error instanceof InvalidTokenError ? toProblem(error) : error;
    }
  }

  /** Passport creates one object per attempt from a strategy, and sets the callbacks on it. */
  private runPassport(request: Request): Promise<Principal> {
    return new Promise((resolve, reject) => {
      const attempt = Object.create(this, {
        success: { value: resolve },
        error: { value: reject },
        fail: { value: (reason: unknown) => reject(toAuthError(reason)) },
      }) as this;
      attempt.authenticate(request);
    });
  }

  /** Returns the principal without a query if the cache allows the token. Never refuses one. */
  authenticateFromCache(token: VerifiedToken): Principal | undefined {
    const cached = this.users.get(token.subject, this.sessionLookupFor(token));
    if (!cached || verdict(token, cached, this.environment, new Date()) !== 'allowed') {
      return undefined;
    }
    return this.toPrincipal(token, cached);
  }

  /** Passport calls this with a verified token. The cache can allow it, only a query refuses it. */
  async validate(token: VerifiedToken): Promise<Principal> {
    const lookup = this.sessionLookupFor(token);
    let found = this.users.get(token.subject, lookup) ?? null;
    let result = verdict(token, found, this.environment, new Date());
    // The session claim is a matter of the token. All else may have changed since it was cached.
    if (result !== 'allowed' && result !== 'no-session-claim') {
      found = await this.users.load(token.subject, lookup);
      result = verdict(token, found, this.environment, new Date());
    }
    if (!found || result !== 'allowed') throw refusal(result, found);
    return this.toPrincipal(token, found);
  }

  /**
   * A sign-out everywhere, a ban and a deletion delete the session rows. A new sign-in creates a
   * session that is newer than the token, so it does not make a token without a session id valid.
   */
  private sessionLookupFor(token: VerifiedToken): SessionLookup | null {
    const { sessionId } = token;
    if (this.environment.SESSION_BINDING === 'token-only') return null;
    return sessionId === null ? { maxCreatedAt: latestSessionStart(token) } : { sessionId };
  }

  private toPrincipal(token: VerifiedToken, { user, session }: UserWithSession): Principal {
    const impersonatedBy = session === null ? null : session.impersonatedBy;
    const actsAsAdmin = impersonatedBy === null && isAdmin(user, this.environment);
    return token.sessionId === null
      ? { user, session: null, token, binding: 'user', impersonatedBy, isAdmin: actsAsAdmin }
      : { user, session, token, binding: 'session', impersonatedBy, isAdmin: actsAsAdmin };
  }
}

function refusal(result: Verdict, found: UserWithSession | null): Problem {
  if (result === 'no-session') return unauthorized('AUTH_SESSION_REVOKED');
  if (result !== 'banned' || !found) return unauthorized('AUTH_TOKEN_INVALID', result);
  const { banReason, banExpires } = found.user;
  return problem('USER_BANNED', {
    members: { banReason, banExpires: banExpires?.toISOString() ?? null },
  });
}

/** passport-jwt reports a missing token only by this message. All other errors are ours. */
function toAuthError(reason: unknown): unknown {
  if (reason instanceof Error && reason.message === 'No auth token') {
    return unauthorized('AUTH_MISSING_TOKEN');
  }
  return reason;
}

function toProblem({ failure, reason }: InvalidTokenError): Problem {
  if (failure === 'keys-unavailable')
    return unavailable('The keys of the issuer are not available.');
  if (failure === 'busy') {
    const headers = { 'Retry-After': String(RETRY_AFTER_SECONDS) };
    return problem('RATE_LIMITED', { headers, reason });
  }
  if (reason === 'lifetime') return unauthorized('AUTH_TOKEN_INVALID', reason, LIFETIME_DETAIL);
  return unauthorized(failure === 'expired' ? 'AUTH_TOKEN_EXPIRED' : 'AUTH_TOKEN_INVALID', reason);
}

/** Safe to reveal after the signature check. All other invalid tokens get the same response. */
const LIFETIME_DETAIL =
  "The token lives longer than JWT_MAX_LIFETIME_SECONDS allows. Shorten Better-Auth's `expirationTime`, or raise the limit.";
