import { hash } from 'node:crypto';
import type { Problem } from '../problems/problem.js';
import { unauthorized } from '../problems/unauthorized.js';
import { InvalidTokenError } from './invalid-token.js';

/** The token of a request, parsed and hashed once. */
export interface BearerToken {
  /** Undefined if the request has no well-formed Bearer header. */
  text: string | undefined;
  /** Empty if there is no token. */
  digest: string;
}

declare module 'express-serve-static-core' {
  interface Request {
    /** Set if the caches did not answer. */
    bearer?: BearerToken;
  }
}

/**
 * Returns the token of a well-formed Bearer header (RFC 6750 §2.1), and undefined for every other
 * header. Adjacent parts of the expression share no character, so it takes linear time.
 * passport-jwt's own extractor does not.
 */
export function parseBearer(authorization: string | undefined): string | undefined {
  return authorization === undefined
    ? undefined
    : /^bearer +([\w.~+/-]+=*)$/i.exec(authorization)?.[1];
}

/** The error for a header without a token. Another scheme counts as a missing header. */
export function bearerError(authorization: string | undefined): InvalidTokenError | Problem {
  // RFC 9110 §11.1: the scheme is a case-insensitive token.
  return /^bearer(?![\w!#$%&'*+.^`|~-])/i.test(authorization ?? '')
    ? new InvalidTokenError('invalid', 'authorization-header')
    : unauthorized('AUTH_MISSING_TOKEN');
}

/** Caches use the digest, so that they stay small, and free of tokens that could be replayed. */
export function digestOf(token: string): string {
  return hash('sha256', token, 'base64url');
}
