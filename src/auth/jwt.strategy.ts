import { Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import type { Request } from 'express';
import passportJwt, { type StrategyOptionsWithoutRequest } from 'passport-jwt';
import { Environment } from '../config/environment.js';
import { type Problem, problem, RETRY_AFTER_SECONDS, unavailable } from '../problems/problem.js';
import { unauthorized } from '../problems/unauthorized.js';
import type { CpuBudget } from '../rate-limit/cpu-budget.js';
import type { Principal, VerifiedToken } from '../access/principal.js';
import { UserCache } from './user-cache.js';
import type { UserWithSession, SessionLookup } from './auth.repository.js';
import { parseBearer, requireBearer } from './bearer.js';
import { InvalidTokenError } from './invalid-token.js';
import { TokenVerifier } from './token-verifier.js';
import { isAdmin, isBanned } from '../access/user-rules.js';

/**
 * passport-jwt verifies with `jsonwebtoken`, which cannot verify EdDSA, Better-Auth's default. This is
 * the seam it leaves for another verifier: one for the process, so it holds nothing itself and finds
 * the verifier where a key would be.
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
    /** Where a signature may be verified only while there is CPU time for it. */
    signatureBudget?: CpuBudget;
  }
}

/** Whose token is this, and is it still true? */
@Injectable()
export class JwtStrategy extends PassportStrategy(passportJwt.Strategy) {
  constructor(
    private readonly verifier: TokenVerifier,
    private readonly principals: UserCache,
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

  /** What the token of this request says, where it was proven before. Refuses nothing. */
  getCachedToken({ headers: { authorization } }: Request): VerifiedToken | undefined {
    const token = parseBearer(authorization);
    return token ? this.verifier.getCached(token) : undefined;
  }

  /** The same for a token that may be out of time. */
  getVerifiedToken({ headers: { authorization } }: Request): VerifiedToken | undefined {
    const token = parseBearer(authorization);
    return token ? this.verifier.getVerified(token) : undefined;
  }

  /** Runs once for one request. Rejects with the problem that answers it. */
  async authenticateRequest(request: Request): Promise<Principal> {
    try {
      return await this.run(request);
    } catch (error) {
      throw error instanceof InvalidTokenError ? toProblem(error) : error;
    }
  }

  /** What Passport does with a strategy: one object per attempt, with its ways out on it. */
  private run(request: Request): Promise<Principal> {
    return new Promise((resolve, reject) => {
      const attempt = Object.create(this, {
        success: { value: resolve },
        error: { value: reject },
        fail: { value: (reason: unknown) => reject(toAuthError(reason)) },
      }) as this;
      attempt.authenticate(request);
    });
  }

  /** Whoever is in good standing by what is remembered need not wait. */
  authenticateFromCache(token: VerifiedToken): Principal | undefined {
    if (this.lacksSessionClaim(token)) return undefined;
    const standing = this.principals.get(token.subject, this.sessionLookupFor(token));
    if (!standing) return undefined;
    const now = new Date();
    if (isBanned(standing.user, now) || !this.hasValidSession(standing, now)) return undefined;
    return this.toPrincipal(token, standing);
  }

  async validate(token: VerifiedToken): Promise<Principal> {
    if (this.lacksSessionClaim(token)) {
      throw new InvalidTokenError('invalid', 'no-session-claim');
    }
    const known = this.authenticateFromCache(token);
    if (known) return known;

    const standing = await this.principals.load(token.subject, this.sessionLookupFor(token));
    if (!standing) throw new InvalidTokenError('invalid', 'no-such-user');

    const now = new Date();
    const { user } = standing;
    if (isBanned(user, now)) {
      throw problem('USER_BANNED', {
        members: {
          banReason: user.banReason,
          banExpires: user.banExpires?.toISOString() ?? null,
        },
      });
    }
    if (!this.hasValidSession(standing, now)) throw unauthorized('AUTH_SESSION_REVOKED');
    return this.toPrincipal(token, standing);
  }

  private lacksSessionClaim({ sessionId }: VerifiedToken): boolean {
    return sessionId === null && this.environment.SESSION_BINDING === 'require-sid';
  }

  /**
   * Signing out everywhere, a ban and a removal delete the session rows, and a new sign-in makes one
   * that is younger than the token. So a token without a session id stands as long as its user has a
   * session that was there when it was issued. `iat` has no fractions, `createdAt` does.
   */
  private sessionLookupFor({ sessionId, issuedAt }: VerifiedToken): SessionLookup | null {
    if (this.environment.SESSION_BINDING === 'token-only') return null;
    return sessionId === null ? { maxCreatedAt: new Date((issuedAt + 1) * 1000) } : { sessionId };
  }

  private hasValidSession({ session, impersonator }: UserWithSession, now: Date): boolean {
    if (this.environment.SESSION_BINDING === 'token-only') return true;
    if (session === null || session.expiresAt <= now) return false;
    return session.impersonatedBy === null || this.mayImpersonate(impersonator, now);
  }

  /**
   * An impersonated session stands as long as its admin does: as an admin, and with a session of their
   * own that was there when it began. Better-Auth ends it for none of these reasons.
   */
  private mayImpersonate(impersonator: UserWithSession | null, now: Date): boolean {
    if (!impersonator?.session || impersonator.session.impersonatedBy !== null) return false;
    const { user, session } = impersonator;
    return session.expiresAt > now && !isBanned(user, now) && isAdmin(user, this.environment);
  }

  private toPrincipal(token: VerifiedToken, { user, session }: UserWithSession): Principal {
    const impersonatedBy = session === null ? null : session.impersonatedBy;
    const administers = impersonatedBy === null && isAdmin(user, this.environment);
    return token.sessionId === null
      ? { user, session: null, token, binding: 'user', impersonatedBy, isAdmin: administers }
      : { user, session, token, binding: 'session', impersonatedBy, isAdmin: administers };
  }
}

/** passport-jwt's own word for "there was no token", among the errors that are ours. */
function toAuthError(reason: unknown): unknown {
  if (reason instanceof Error && reason.message === 'No auth token') {
    return unauthorized('AUTH_MISSING_TOKEN');
  }
  return reason;
}

function toProblem({ failure: why, reason }: InvalidTokenError): Problem {
  if (why === 'keys-unavailable') return unavailable('The keys of the issuer are not at hand.');
  if (why === 'busy') {
    const headers = { 'Retry-After': String(RETRY_AFTER_SECONDS) };
    return problem('RATE_LIMITED', { headers, reason });
  }
  if (reason === 'lifetime') return unauthorized('AUTH_TOKEN_INVALID', reason, LIFETIME_DETAIL);
  return unauthorized(why === 'expired' ? 'AUTH_TOKEN_EXPIRED' : 'AUTH_TOKEN_INVALID', reason);
}

/** Safe to say: the signature is proven by then. All other invalid tokens look the same. */
const LIFETIME_DETAIL =
  "The token lives longer than JWT_MAX_LIFETIME_SECONDS allows. Shorten Better-Auth's `expirationTime`, or raise the limit.";
