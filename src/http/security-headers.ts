import type { NextFunction, Request, Response } from 'express';

/** Headers for data. Headers that only pages or obsolete browsers use are omitted. */
export const SECURITY_HEADERS: readonly [name: string, value: string][] = [
  // A response is valid for one moment and one caller.
  ['Cache-Control', 'no-store'],
  ['Content-Security-Policy', "default-src 'none';frame-ancestors 'none'"],
  ['Cross-Origin-Resource-Policy', 'same-origin'],
  ['Referrer-Policy', 'no-referrer'],
  ['Strict-Transport-Security', 'max-age=31536000; includeSubDomains'],
  ['X-Content-Type-Options', 'nosniff'],
  ['X-Frame-Options', 'DENY'],
];

/**
 * Headers for Swagger UI, the only page. It loads everything from this origin, but sets inline
 * styles. For its sign-in, it also sends requests to the origin of Better-Auth.
 */
export function pageHeaders(betterAuthOrigin: string | undefined) {
  const connections = betterAuthOrigin ? [`connect-src 'self' ${betterAuthOrigin}`] : [];
  const policy = [...PAGE_POLICY, ...connections].join(';');
  return (_request: Request, response: Response, next: NextFunction): void => {
    response.setHeader('Content-Security-Policy', policy);
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
    next();
  };
}

const PAGE_POLICY = [
  "default-src 'self'",
  "img-src 'self' data:",
  "style-src 'self' 'unsafe-inline'",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
];
