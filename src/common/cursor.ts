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

/** Null for anything that `encodeCursor` did not make for this sort. */
export function decodeCursor(text: string, wantedSort: string): Cursor | null {
  const [payload = '', tag] = text.split('.');
  if (text.length > 2048 || tag !== tagOf(payload) || text !== `${payload}.${tag}`) return null;
  const [sort, value, id] = JSON.parse(Buffer.from(payload, 'base64url').toString()) as string[];
  if (sort !== wantedSort || value === undefined || id === undefined) return null;
  return { sort, value, id };
}

function tagOf(payload: string): string {
  return hash('sha256', `gatehouse cursor ${payload}`, 'base64url').slice(0, 16);
}
