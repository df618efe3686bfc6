import { hash } from 'node:crypto';
import { createParamDecorator } from '@nestjs/common';
import type { Request } from 'express';
import { problem } from '../problems/problem.js';

/** A strong ETag: equal representations have equal tags. */
export function etagOf(representation: object): string {
  return `"${hash('sha256', JSON.stringify(representation), 'base64url').slice(0, 27)}"`;
}

/** The value of `If-Match`, or undefined without the header. */
export const IfMatch = createParamDecorator(
  (_: unknown, context): string | undefined =>
    context.switchToHttp().getRequest<Request>().headers['if-match'],
);

/**
 * RFC 9110, section 13.1.1: one of the listed tags must match. The comparison is strong, so a weak
 * tag never matches.
 */
export function requireMatch(ifMatch: string | undefined, etag: string): void {
  if (ifMatch === undefined || ifMatch.trim() === '*') return;
  const tags: string[] = ifMatch.match(TAG) ?? [];
  if (tags.length === 0 || !/^[\s,]*$/.test(ifMatch.replace(TAG, ''))) {
    const detail = '`If-Match` must be `*` or a list of quoted ETags.';
    throw problem('MALFORMED_REQUEST', { detail });
  }
  if (!tags.includes(etag)) throw problem('PRECONDITION_FAILED');
}

const TAG = /(?:W\/)?"[^"]*"/g;
