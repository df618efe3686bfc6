import type { VerifiedToken } from './principal.js';

/**
 * A token without a session id is valid while its user has a session that existed when it was
 * issued. `iat` has no fractions, but `createdAt` has.
 */
export function latestSessionStart({ issuedAt }: VerifiedToken): Date {
  return new Date((issuedAt + 1) * 1000);
}

/** The servers of one Better-Auth may have different clocks. `iat` has the same tolerance. */
export const MAX_CLOCK_DIFFERENCE_MS = 1000;
