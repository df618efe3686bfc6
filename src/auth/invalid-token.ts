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
  if (reason === 'lifetime') return unauthorized('AUTH_TOKEN_INVALID', reason, LIFETIME_DETAIL);
  return unauthorized(failure === 'expired' ? 'AUTH_TOKEN_EXPIRED' : 'AUTH_TOKEN_INVALID', reason);
}

/** Safe to reveal after the signature check. All other invalid tokens get the same response. */
const LIFETIME_DETAIL =
  "The token lives longer than JWT_MAX_LIFETIME_SECONDS allows. Shorten Better-Auth's `expirationTime`, or raise the limit.";
