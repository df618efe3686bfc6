import type { Environment } from './environment.js';
import { isPlain } from './loopback.js';

/** What only several variables together can show. */
export function crossFieldErrors(
  environment: Environment,
  variables: Record<string, string | undefined>,
): string[] {
  const faults: string[] = [];
  if (environment.ADMIN_ROLES.some((role) => !environment.ROLES.includes(role))) {
    faults.push('ADMIN_ROLES may only name roles that ROLES lists');
  }
  if (environment.ADMIN_ROLES.includes(DEFAULT_ROLE)) {
    faults.push(`ADMIN_ROLES must not name "${DEFAULT_ROLE}", the role of everybody who signs up`);
  }
  if (environment.JWKS_MAX_STALE_SECONDS < environment.JWKS_REFRESH_SECONDS) {
    faults.push('JWKS_MAX_STALE_SECONDS must not be less than JWKS_REFRESH_SECONDS');
  }
  if (isPlain(environment.JWKS_URL ?? environment.BETTER_AUTH_URL)) {
    const name = environment.JWKS_URL === undefined ? 'BETTER_AUTH_URL' : 'JWKS_URL';
    faults.push(
      `${name} must use https, since keys are fetched there (plain http only on loopback)`,
    );
  }
  if (environment.NODE_ENV !== 'production') return faults;
  for (const name of ['DATABASE_URL', 'BETTER_AUTH_URL']) {
    if (!variables[name]) faults.push(`${name} is required in production`);
  }
  if (environment.JWKS_URL !== undefined && isPlain(environment.BETTER_AUTH_URL)) {
    faults.push('BETTER_AUTH_URL must use https in production (plain http only on loopback)');
  }
  return faults;
}

/** Better-Auth's `defaultRole`; a row without a role counts as this one, too. */
const DEFAULT_ROLE = 'user';
