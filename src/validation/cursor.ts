import { hash } from 'node:crypto';

/** Where a walk through a list stands: the sort it follows, and the last row's place in it. */
export interface Cursor {
  sort: string;
  value: string;
  id: string;
}

/** Opaque to clients. The tag finds what was changed on the way; there is no secret in a place in a list. */
export function encodeCursor({ sort, value, id }: Cursor): string {
  const payload = Buffer.from(JSON.stringify([sort, value, id])).toString('base64url');
  return `${payload}.${tagOf(payload)}`;
}

/**
 * Null for anything that `encodeCursor` did not make for this sort. Anybody can make the tag, too, so
 * the value must also be one that the list could have (`form`), and PostgreSQL can read.
 */
export function decodeCursor(text: string, wantedSort: string, form: RegExp): Cursor | null {
  const [payload = '', tag] = text.split('.');
  if (tag !== tagOf(payload) || text !== `${payload}.${tag}`) return null;
  const parts = readParts(payload);
  if (!parts.every((part) => typeof part === 'string' && !part.includes('\0'))) return null;
  const [sort, value, id] = parts as string[];
  if (sort !== wantedSort || value === undefined || id === undefined || !form.test(value)) {
    return null;
  }
  return { sort, value, id };
}

function readParts(payload: string): unknown[] {
  try {
    const parts: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString());
    return Array.isArray(parts) ? parts : [];
  } catch {
    return [];
  }
}

function tagOf(payload: string): string {
  return hash('sha256', `gatehouse cursor ${payload}`, 'base64url').slice(0, 16);
}
