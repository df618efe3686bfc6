/** The introduction of the OpenAPI document. */
export const INTRODUCTION = `
Gatehouse manages users, roles, bans, sessions and linked accounts of a
[Better-Auth](https://better-auth.com) installation. Better-Auth signs users in. Gatehouse
checks every request against the current data.

**Authentication.** A signed-in client gets a token from Better-Auth (\`GET /api/auth/token\`)
and sends it as \`Authorization: Bearer <token>\`. The token becomes invalid when it expires,
or when its user is banned or deleted. A token with a session id also becomes invalid when that
session ends.

**Errors** are \`application/problem+json\` (RFC 9457). Base decisions on \`code\`, which is
stable. Quote \`requestId\` in support requests. The server creates it and logs it together with
your own \`X-Request-Id\`.

**Rate limits.** \`RateLimit\` contains the remaining requests. After a 429 or a 503, wait for
\`Retry-After\` seconds.
`.trim();

export const TAGS: Record<string, string> = {
  Me: 'The authenticated user.',
  Users: 'Find, change and ban users.',
  Sessions: 'List and end the sessions of users.',
  Accounts: 'Linked sign-in accounts.',
  Audit: 'The record of every change.',
  Health: 'Health checks for probes and operators. They are public and not rate limited.',
};
