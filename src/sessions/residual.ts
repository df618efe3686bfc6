import type { RevokedSession } from '../better-auth/revoked-session.js';
import type { Environment } from '../config/environment.js';

/**
 * The latest time at which a token that names no session could still be accepted.
 *
 * Such a token is valid while its user has a session that existed when the token was issued.
 * Better-Auth's cookie cache issues tokens for an ended session until its cached copy expires, at
 * the latest when that session would have expired. If the user has signed in again before, such a
 * token cannot be distinguished from a token of the new session.
 */
export function residualUntil(
  revoked: Pick<RevokedSession, 'expiresAt'>[],
  { SESSION_BINDING, JWT_MAX_LIFETIME_SECONDS, JWT_LEEWAY_SECONDS }: Environment,
): Date | null {
  if (SESSION_BINDING === 'require-sid') return null;
  const expiries = revoked.map(({ expiresAt }) => expiresAt.getTime()).filter(Number.isFinite);
  const lastIssuedAt = expiries.reduce((latest, time) => Math.max(latest, time), Date.now());
  // The leeway counts twice: once for a clock that is ahead, and once for `exp`.
  return new Date(lastIssuedAt + (JWT_MAX_LIFETIME_SECONDS + 2 * JWT_LEEWAY_SECONDS) * 1000);
}
