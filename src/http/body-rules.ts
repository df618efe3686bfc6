import { problem } from '../problems/problem.js';

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
