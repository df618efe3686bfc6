import type { VerifiedToken } from '../access/principal.js';
import type { AccessPolicy } from '../access/access-policy.js';
import { isBanned } from '../access/user-rules.js';
import type { Environment } from '../config/environment.js';
import type { UserWithSession } from './auth.repository.js';

export type Verdict = 'allowed' | 'no-session-claim' | 'no-such-user' | 'banned' | 'no-session';

export type VerdictSettings = Pick<Environment, 'SESSION_BINDING'>;

/** Decides whether a user may still use a token. `found` is null if there is no such user. */
export function verdict(
  token: Pick<VerifiedToken, 'sessionId'>,
  found: UserWithSession | null,
  { SESSION_BINDING }: VerdictSettings,
  policy: AccessPolicy,
  now: Date,
): Verdict {
  if (SESSION_BINDING === 'require-sid' && token.sessionId === null) return 'no-session-claim';
  if (!found) return 'no-such-user';
  if (isBanned(found.user, now)) return 'banned';
  if (SESSION_BINDING === 'token-only') return 'allowed';
  const { session, impersonator } = found;
  if (session === null || session.expiresAt <= now) return 'no-session';
  if (session.impersonatedBy === null) return 'allowed';
  return mayImpersonate(impersonator, policy, now) ? 'allowed' : 'no-session';
}

/**
 * An impersonated session is valid while its impersonator may impersonate and is not banned. The
 * impersonator also needs an own session that existed when it started. Better-Auth itself checks
 * none of this.
 */
function mayImpersonate(found: UserWithSession | null, policy: AccessPolicy, now: Date): boolean {
  if (!found?.session || found.session.impersonatedBy !== null) return false;
  const { user, session } = found;
  const canImpersonate = policy.permissionsOf(user).can({ user: ['impersonate'] });
  return session.expiresAt > now && !isBanned(user, now) && canImpersonate;
}
