import { Injectable } from '@nestjs/common';
import { AccessPolicy } from '../access/access-policy.js';
import type { Principal, VerifiedToken } from '../access/principal.js';
import { latestSessionStart } from '../access/session-rules.js';
import { isAdmin } from '../access/user-rules.js';
import { Environment } from '../config/environment.js';
import { type Problem, problem } from '../problems/problem.js';
import { unauthorized } from '../problems/unauthorized.js';
import { AuthMetrics } from './auth-metrics.js';
import type { SessionLookup, UserWithSession } from './auth.repository.js';
import { bearerError, parseBearer } from './bearer.js';
import { toProblem } from './invalid-token.js';
import { TokenVerifier } from './token-verifier.js';
import { UserCache } from './user-cache.js';
import { type Verdict, verdict } from './verdict.js';

/**
 * Answers whose token this is, and whether they may still use it: token, user, ban, session,
 * impersonator, principal. A cached entry can allow a request, but never refuse one.
 */
@Injectable()
export class AuthService {
  constructor(
    private readonly verifier: TokenVerifier,
    private readonly users: UserCache,
    private readonly environment: Environment,
    private readonly policy: AccessPolicy,
    private readonly metrics: AuthMetrics,
  ) {}

  /**
   * Authenticates the value of an Authorization header, for code without an HTTP route. Rejects
   * with a problem. Failures do not count towards any limit.
   */
  async authenticate(authorization: string | undefined): Promise<Principal> {
    try {
      const token = parseBearer(authorization);
      if (token === undefined) throw bearerError(authorization);
      const principal = await this.resolve(await this.verifier.verify(token));
      this.metrics.accepted += 1;
      return principal;
    } catch (error) {
      const refused = toProblem(error);
      this.metrics.failed(refused);
      throw refused;
    }
  }

  /** Returns the principal if the caches allow the token. Sends no query and never refuses. */
  authenticateFromCache(tokenDigest: string): Principal | undefined {
    const token = this.verifier.getCached(tokenDigest);
    const found = token && this.users.get(token.subject, this.sessionLookupFor(token));
    if (!found || verdict(token, found, this.environment, this.policy, new Date()) !== 'allowed')
      return undefined;
    return this.toPrincipal(token, found);
  }

  /** Finds the user and the session of a verified token. Only a query of the database refuses. */
  async resolve(token: VerifiedToken): Promise<Principal> {
    const lookup = this.sessionLookupFor(token);
    let found = this.users.get(token.subject, lookup) ?? null;
    let result = verdict(token, found, this.environment, this.policy, new Date());
    // The session claim is a matter of the token. All else may have changed since it was cached.
    if (result !== 'allowed' && result !== 'no-session-claim') {
      found = await this.users.load(token.subject, lookup);
      result = verdict(token, found, this.environment, this.policy, new Date());
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
    const isOwn = impersonatedBy === null;
    const permissions = isOwn ? this.policy.permissionsOf(user) : this.policy.none;
    return {
      user,
      session: token.sessionId === null ? null : session,
      token,
      binding: token.sessionId === null ? 'user' : 'session',
      impersonatedBy,
      isAdmin: isOwn && isAdmin(user, this.environment),
      permissions,
      can: permissions.can,
    };
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
