import { refuse } from './invalid-token.js';
import { isObject } from './jwk.js';

export const MAX_TOKEN_LENGTH = 8 * 1024;

export type Members = ReadonlyMap<string, unknown>;

interface ReadToken {
  header: Members;
  claims: Members;
  signingInput: Uint8Array;
  signature: Uint8Array;
}

/** RFC 7515 §7.1: header, payload and signature in base64url, with a dot between each. */
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
 * of any line breaks, whitespace, or other additional characters". Node skips all of these, takes
 * the other alphabet too, and drops surplus bits (RFC 4648 §3.5); but only text in the one
 * canonical form comes back as it was.
 */
function decode(part: string): Buffer {
  const bytes = Buffer.from(part, 'base64url');
  return bytes.toString('base64url') === part ? bytes : refuse('base64url');
}

// RFC 8725 §3.7: UTF-8 and nothing else. A byte order mark stays, for JSON.parse to refuse.
const UTF_8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A map, because a name that is not there must not be found on Object.prototype. */
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
 * RFC 7515 §4 and RFC 7519 §4 let a reader refuse a name that comes twice or take the last one. We
 * refuse: two readers that choose differently see two tokens under one signature. The text has
 * been parsed, so a string before a colon is a name; and only names of the object itself count.
 */
function hasDuplicateMember(json: string): boolean {
  const names = new Set<string>();
  let depth = 0;
  for (const [found, , colon] of json.matchAll(/("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}]/g)) {
    if (found === '{') depth += 1;
    if (found === '}') depth -= 1;
    if (colon === undefined || depth !== 1) continue;
    const name = String(JSON.parse(found.slice(0, -colon.length)));
    if (names.has(name)) return true;
    names.add(name);
  }
  return false;
}
