import { problem, RETRY_AFTER_SECONDS, unavailable } from '../problems/problem.js';
import { unauthorized } from '../problems/unauthorized.js';

/** `busy`: the signature was not verified, because the CPU budget was used up. */
export type TokenFailure = 'invalid' | 'expired' | 'keys-unavailable' | 'busy';

/** The token is not accepted. `reason` is a short, stable code without the token. */
export class InvalidTokenError extends Error {
  override readonly name = 'InvalidTokenError';

  constructor(
    readonly failure: TokenFailure,
    readonly reason: string,
  ) {
    super(reason);
  }
}

export function refuse(reason: string): never {
  throw new InvalidTokenError('invalid', reason);
}

/** Converts an InvalidTokenError to the problem for the response. Returns every other error. */
export function toProblem(error: unknown): unknown {
  if (!(error instanceof InvalidTokenError)) return error;
  const { failure, reason } = error;
  if (failure === 'keys-unavailable')
    return unavailable('The keys of the issuer are not available.');
  if (failure === 'busy') {
    const headers = { 'Retry-After': String(RETRY_AFTER_SECONDS) };
    return problem('RATE_LIMITED', { headers, reason });
  }
  const code = failure === 'expired' ? 'AUTH_TOKEN_EXPIRED' : 'AUTH_TOKEN_INVALID';
  return unauthorized(code, reason, DETAILS[reason]);
}

/**
 * Details that are safe to reveal. The first follows the signature check, and the second needs no
 * check of a token. All other invalid tokens get the same response.
 */
const DETAILS: Record<string, string> = {
  lifetime:
    "The lifetime of the token is longer than JWT_MAX_LIFETIME_SECONDS allows. Shorten Better-Auth's `expirationTime`, or raise the limit.",
  'authorization-header':
    'Send the token alone, as `Authorization: Bearer <token>`: without quotes, JSON or spaces, and with the word `Bearer` once.',
};
