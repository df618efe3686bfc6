import { refuse } from './invalid-token.js';

/**
 * Returns the token of an Authorization header (RFC 6750 §2.1). Returns undefined for a missing
 * header and for another scheme. Refuses a malformed Bearer header.
 */
export function requireBearer(authorization: string | undefined): string | undefined {
  const token = parseBearer(authorization);
  // RFC 9110 §11.1: the scheme is a case-insensitive token.
  const isBearer =
    token === undefined && /^bearer(?![\w!#$%&'*+.^`|~-])/i.test(authorization ?? '');
  return isBearer ? refuse('authorization-header') : token;
}

/**
 * Returns the token of a well-formed Bearer header, and undefined for every other header. Adjacent
 * parts of the expression share no character, so it takes linear time. passport-jwt's own
 * extractor does not.
 */
export function parseBearer(authorization: string | undefined): string | undefined {
  return authorization === undefined
    ? undefined
    : /^bearer +([\w.~+/-]+=*)$/i.exec(authorization)?.[1];
}
