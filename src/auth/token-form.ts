import { repeatedNames } from '../config/repeated-names.js';
import { refuse } from './invalid-token.js';
import { isObject } from './jwk.js';

const MAX_TOKEN_LENGTH = 8 * 1024;

export type Members = ReadonlyMap<string, unknown>;

interface ReadToken {
  header: Members;
  claims: Members;
  signingInput: Uint8Array;
  signature: Uint8Array;
}

/** RFC 7515 §7.1: header, payload and signature in base64url, separated by dots. */
export function readToken(token: string): ReadToken {
  if (token.length > MAX_TOKEN_LENGTH) refuse('too-long');
  const [header, payload, signature, ...more] = token.split('.');
  if (!header || !payload || !signature || more.length > 0) return refuse('not-three-parts');
  return {
    header: readMembers(decode(header)),
    claims: readMembers(decode(payload)),
    signingInput: Buffer.from(`${header}.${payload}`, 'latin1'),
    signature: decode(signature),
  };
}

/**
 * RFC 7515 §2: base64url "with all trailing '=' characters omitted […] and without the inclusion
 * of any line breaks, whitespace, or other additional characters". Node ignores such
 * characters, accepts the standard base64 alphabet, and drops surplus bits (RFC 4648 §3.5). Only
 * text in the canonical form survives the round trip.
 */
function decode(part: string): Buffer {
  const bytes = Buffer.from(part, 'base64url');
  return bytes.toString('base64url') === part ? bytes : refuse('base64url');
}

// RFC 8725 §3.7 requires UTF-8. A byte order mark is kept, and JSON.parse refuses it.
const UTF_8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Returns a map, so that a lookup never finds a member of Object.prototype. */
function readMembers(bytes: Uint8Array): Members {
  let text: string;
  let value: unknown;
  try {
    text = UTF_8.decode(bytes);
    value = JSON.parse(text);
  } catch {
    return refuse('json');
  }
  if (!isObject(value)) return refuse('json');
  if (hasDuplicateMember(text)) refuse('duplicate-member');
  return new Map(Object.entries(value));
}

/**
 * RFC 7515 §4 and RFC 7519 §4 let a reader refuse a duplicate name or use the last one. We refuse
 * it, because two readers could otherwise read different claims under one signature. Names in
 * nested objects do not count.
 */
function hasDuplicateMember(json: string): boolean {
  return [...repeatedNames(json)].some((path) => path.length === 1);
}
