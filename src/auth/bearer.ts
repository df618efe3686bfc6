import { refuse } from './invalid-token.js';

/**
 * The token of an Authorization header (RFC 6750 §2.1), or undefined where it holds none: no
 * header, or another scheme. A Bearer header of any other shape is refused.
 */
export function requireBearer(authorization: string | undefined): string | undefined {
  const token = parseBearer(authorization);
  // RFC 9110 §11.1: the scheme is case-insensitive, and ends where its characters do.
  const isBearer =
    token === undefined && /^bearer(?![\w!#$%&'*+.^`|~-])/i.test(authorization ?? '');
  return isBearer ? refuse('authorization-header') : token;
}

/**
 * The same without a refusal: only a header in the right form has a token. The parts of the expression
 * have no character in common, so it takes linear time; passport-jwt's own extractor does not.
 */
export function parseBearer(authorization: string | undefined): string | undefined {
  return authorization === undefined
    ? undefined
    : /^bearer +([\w.~+/-]+=*)$/i.exec(authorization)?.[1];
}
