import { parse as parseForm } from 'node:querystring';
import { problem } from '../problems/problem.js';

/** The metadata key under which a route declares what it accepts as its body. */
export const BODY = 'gatehouse:body';

/** What a route accepts as its body. */
export interface BodyRules {
  /** The accepted content types. */
  types: string[];
  /** Whether the body is text, which must be UTF-8. */
  text: boolean;
  /** Converts the body for `@Body()`. Without it, an interceptor of the route reads the body. */
  parse?: (bytes: Buffer, rules: BodyRules) => unknown;
  /** Whether the body is one value without fields, which the validation pipe passes on. */
  opaque?: true;
  /** The maximum size in bytes. The default is `BODY_LIMIT`. */
  limit?: number | undefined;
  /** The maximum number of fields and array items at all depths. */
  maxEntries: number;
  /** The maximum levels of nesting. */
  maxDepth: number;
}

const DEFAULT_LIMITS = { maxEntries: 50, maxDepth: 5 };

export const JSON_BODY: BodyRules = {
  ...DEFAULT_LIMITS,
  types: ['application/json'],
  text: true,
  parse: parseJson,
};

export const FORM_BODY: BodyRules = {
  ...DEFAULT_LIMITS,
  types: ['application/x-www-form-urlencoded'],
  text: true,
  // The validation pipe rejects the first field over the limit. Further ones need not be parsed.
  parse: (bytes, { maxEntries }) =>
    parseForm(UTF_8.decode(bytes), '&', '=', { maxKeys: maxEntries + 1 }),
};

export const TEXT_BODY: BodyRules = {
  ...DEFAULT_LIMITS,
  types: ['text/plain'],
  text: true,
  parse: (bytes) => UTF_8.decode(bytes),
  opaque: true,
};

export const BYTES_BODY: BodyRules = {
  ...DEFAULT_LIMITS,
  types: ['application/octet-stream'],
  text: false,
  parse: (bytes) => bytes,
  opaque: true,
};

export const MULTIPART_BODY: BodyRules = {
  ...DEFAULT_LIMITS,
  types: ['multipart/form-data'],
  text: false,
};

function parseJson(bytes: Buffer): unknown {
  try {
    const value: unknown = JSON.parse(UTF_8.decode(bytes));
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // The message quotes the body.
  }
  throw problem('MALFORMED_REQUEST');
}

/** Removes a byte order mark, and replaces invalid bytes. */
const UTF_8 = new TextDecoder();
