/** The response headers that several routes have in common. */
export const HEADERS: Record<string, { description: string; example: string }> = {
  'X-Request-Id': {
    description:
      'Your own request id if it is valid, otherwise the one from the server. The log contains both.',
    example: '8f14e45f-ceea-467f-a0e6-c0f2a8a1b1de',
  },
  RateLimit: {
    description:
      'The remaining requests and the seconds until the reset (draft-ietf-httpapi-ratelimit-headers)',
    example: '"user";r=299;t=60',
  },
  'RateLimit-Policy': {
    description: 'The number of requests and the length of the window in seconds',
    example: '"user";q=300;w=60',
  },
  'Retry-After': {
    description: 'Seconds to wait before the next attempt',
    example: '2',
  },
  'Access-Control-Allow-Origin': {
    description: 'The origin of the calling page if `CORS_ORIGINS` lists it',
    example: 'https://app.example.com',
  },
  'WWW-Authenticate': {
    description: 'The challenge of RFC 6750',
    example: 'Bearer realm="gatehouse", error="invalid_token"',
  },
  ETag: {
    description: 'The version of the user, for `If-Match`',
    example: '"k1m2n3o4p5q6r7s8t9u0v1w2x3y"',
  },
};
