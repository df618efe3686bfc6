import { isIP } from 'node:net';
import type { Request } from 'express';

/**
 * The client's address. With `TRUST_PROXY` it is the value of the proxy if that is an IP address.
 */
export function clientAddress({ ip, socket }: Request): string | null {
  // Only a link-local address has a zone (RFC 4007 §11), and a proxy never forwards one.
  if (ip !== undefined && isIP(ip) !== 0 && !ip.includes('%')) return ip;
  return socket.remoteAddress ?? null;
}
