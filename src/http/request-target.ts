import type { IncomingMessage } from 'node:http';

/**
 * A target that is a whole URL (RFC 9112 §3.2.2) becomes its path. Express knows some of these; where it
 * finds no path, as in `x://y`, it goes past every layer and answers by itself, after us and in HTML.
 */
export function normalizeTarget(request: IncomingMessage): void {
  const { url = '' } = request;
  if (url.startsWith('/') || url === '*') return;
  const { pathname, search } = URL.parse(url) ?? { pathname: '', search: '' };
  request.url = pathname.startsWith('/') ? pathname + search : '/';
}
