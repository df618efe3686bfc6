import type { Environment } from './environment.js';
import { isPlain } from './loopback.js';
import { DEFAULT_ROLE } from './role-permissions.js';

/** Checks the rules that involve more than one variable. */
export function crossFieldErrors(
  environment: Environment,
  variables: Record<string, string | undefined>,
): string[] {
  const errors: string[] = [];
  if (environment.ADMIN_ROLES.some((role) => !environment.ROLES.includes(role))) {
    errors.push('ADMIN_ROLES may only name roles that ROLES lists');
  }
  if (environment.ADMIN_ROLES.includes(DEFAULT_ROLE)) {
    errors.push(`ADMIN_ROLES must not name "${DEFAULT_ROLE}", the role of every new user`);
  }
  if (environment.JWKS_MAX_STALE_SECONDS < environment.JWKS_REFRESH_SECONDS) {
    errors.push('JWKS_MAX_STALE_SECONDS must not be less than JWKS_REFRESH_SECONDS');
  }
  if (environment.METRICS_PORT === environment.PORT && environment.PORT > 0) {
    errors.push('METRICS_PORT must differ from PORT');
  }
  if (isPlain(environment.JWKS_URL ?? environment.BETTER_AUTH_URL)) {
    const name = environment.JWKS_URL === undefined ? 'BETTER_AUTH_URL' : 'JWKS_URL';
    errors.push(
      `${name} must use https, since keys are fetched there (plain http only on loopback)`,
    );
  }
  if (environment.NODE_ENV !== 'production') return errors;
  for (const name of ['DATABASE_URL', 'BETTER_AUTH_URL']) {
    if (!variables[name]) errors.push(`${name} is required in production`);
  }
  if (environment.JWKS_URL !== undefined && isPlain(environment.BETTER_AUTH_URL)) {
    errors.push('BETTER_AUTH_URL must use https in production (plain http only on loopback)');
  }
  return errors;
}
