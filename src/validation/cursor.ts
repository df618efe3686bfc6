import { hash } from 'node:crypto';

/** For the OpenAPI document. */
export const EXAMPLE_CURSOR = 'eyJzb3J0IjoiLWNyZWF0ZWRBdCJ9.Zm9v';

/** A position in a list: the sort order, and the sort value and id of the last row. */
export interface Cursor {
  sort: string;
  value: string;
  id: string;
}

/** Opaque to clients. The tag is a checksum against accidental changes. A position is no secret. */
export function encodeCursor({ sort, value, id }: Cursor): string {
  const payload = Buffer.from(JSON.stringify([sort, value, id])).toString('base64url');
  return `${payload}.${tagOf(payload)}`;
}

/**
 * Returns null unless `encodeCursor` created the text for this sort order. Anyone can compute the
 * tag, so the value must also match `form`, and contain no NUL, which PostgreSQL rejects.
 */
export function decodeCursor(text: string, expectedSort: string, form: RegExp): Cursor | null {
  const [payload = '', tag] = text.split('.');
  if (tag !== tagOf(payload) || text !== `${payload}.${tag}`) return null;
  const parts = readParts(payload);
  if (!parts.every((part) => typeof part === 'string' && !part.includes('\0'))) return null;
  const [sort, value, id] = parts as string[];
  if (sort !== expectedSort || value === undefined || id === undefined || !form.test(value)) {
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
