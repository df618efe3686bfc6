import type { IncomingMessage } from 'node:http';

/**
 * Replaces a target in absolute form (RFC 9112 §3.2.2) with its path. Express handles only some of
 * them. For a URL without a path, such as `x://y`, Express skips all middleware and responds with
 * HTML.
 */
export function normalizeTarget(request: IncomingMessage): void {
  const { url = '' } = request;
  if (url.startsWith('/') || url === '*') return;
  const { pathname, search } = URL.parse(url) ?? { pathname: '', search: '' };
  request.url = pathname.startsWith('/') ? pathname + search : '/';
}
