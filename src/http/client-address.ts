import { isIP } from 'node:net';
import type { Request } from 'express';

/** The client's address: behind `TRUST_PROXY` what the proxy wrote, unless that is no address at all. */
export function clientAddress({ ip, socket }: Request): string | null {
  // Only a link-local address has a zone (RFC 4007 §11), and none comes through a proxy.
  if (ip !== undefined && isIP(ip) !== 0 && !ip.includes('%')) return ip;
  return socket.remoteAddress ?? null;
}
