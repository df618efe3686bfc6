/** The introduction of the OpenAPI document. */
export const INTRODUCTION = `
Gatehouse manages users, roles, bans, sessions and linked accounts of a
[Better-Auth](https://better-auth.com) installation. Better-Auth signs users in. Gatehouse
checks every request against the current data.

**Authentication.** A signed-in client gets a token from Better-Auth (\`GET /api/auth/token\`)
and sends it as \`Authorization: Bearer <token>\`. The token becomes invalid when it expires,
or when its user is banned or deleted. A token with a session id also becomes invalid when that
session ends. A token without one becomes invalid when its user has no session left from before the token.

**Errors** are \`application/problem+json\` (RFC 9457). Base decisions on \`code\`, which is
stable. Quote \`requestId\` in support requests. The server creates it and logs it together with
your own \`X-Request-Id\`.

**Rate limits.** \`RateLimit\` contains the remaining requests. After a 429 or a 503, wait for
\`Retry-After\` seconds.
`.trim();

/** The introduction of Swagger UI, for admins. */
export function pageIntroduction(tokenUrl: string, offersSignIn: boolean): string {
  const authorize = `[${tokenUrl}](${tokenUrl}) shows a token to a browser that is signed in at
Better-Auth. **Authorize** accepts it.`;
  const signIn = `You sign in at Better-Auth, without leaving this page. For another user or a program,
${authorize}`;
  return `
${offersSignIn ? 'Choose **Sign in** above, then open' : 'Choose **Authorize**, then open'} an
operation, fill in its fields and choose **Execute**.

${offersSignIn ? signIn : authorize}

The error responses here show only their codes. The [complete document](/api/v1/openapi.json) also
has their form and the response headers.
`.trim();
}

/** The tags, in the order of how often admins use them. */
export const TAGS: Record<string, string> = {
  Users: 'Find, change and ban users.',
  Sessions: 'See where users are signed in, and sign them out.',
  Audit: 'See who did what.',
  Accounts: 'See with which providers users sign in.',
  Me: 'See your own user, session and accounts.',
  Health: 'Health checks for probes and operators. They are public and not rate limited.',
};

/** The operations that admins use daily, in this order. All others follow. */
export const DAILY_ORDER = [
  'listUsers',
  'getUser',
  'banUser',
  'unbanUser',
  'changeUserRole',
  'updateUser',
  'listAllSessions',
  'revokeSessionsByFilter',
  'listSessions',
  'revokeSession',
  'revokeSessions',
];
