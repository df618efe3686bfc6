/** What the OpenAPI document says in whole sentences, by name, so that controllers stay tables of contents. */

export const INTRODUCTION = `
Users, roles, bans, sessions and linked accounts of a [Better-Auth](https://better-auth.com) installation.
Better-Auth signs people in; every request here is decided by what its database says now.

**Getting a token.** A signed-in client asks Better-Auth for one (\`GET /api/auth/token\`) and sends it as
\`Authorization: Bearer <token>\`. It ends with its session, its user or a ban, and not only with its time.

**Errors** are \`application/problem+json\` (RFC 9457). Switch on \`code\`, which stays; quote \`requestId\`
when you ask for help. The server makes that id; your own \`X-Request-Id\` stands beside it in the log.

**Limits.** \`RateLimit\` says what is left. After a 429 or a 503 wait for \`Retry-After\` seconds.
`.trim();

export const TAGS: Record<string, string> = {
  Me: 'Whoever sends the token.',
  Users: 'Finding, changing and banning users.',
  Sessions: 'Where users are signed in, and ending that.',
  Accounts: 'The ways in which users can sign in.',
  Audit: 'Who changed what.',
  Health: 'For probes and people. Public, and not counted.',
};

const CONDITIONAL =
  'With `If-Match` it happens only if the user is still as that `ETag` has it; without, the last write wins.';

/** By `operationId`. */
export const OPERATIONS: Record<string, string> = {
  getSession:
    'The session that the token names (null where it names none), the token itself in plain words, and the user.',
  getMe: 'The user as the database has them now, not as they were when the token was issued.',
  listMyAccounts: 'Passwords and providers, without a secret of theirs.',
  listUsers:
    'For admins. Filters are combined with AND. Walk with `cursor`, which costs the same on the first page and on the last; `page` is for people who jump. Above 10,000 the total is an estimate and says so.',
  getUser: 'For the user and for admins. The `ETag` can be sent back as `If-Match` with a change.',
  updateUser: `For the user and for admins. Only what is sent is changed. ${CONDITIONAL}`,
  changeUserRole: `For admins. In force at the user's next request, whatever their token says. When a user stops being an admin, the sessions in which they impersonate somebody end. The last admin stays one, and nobody takes their own admin role. ${CONDITIONAL}`,
  banUser: `For admins. Ends every session of the user in the same transaction, and those in which the user impersonates somebody. Sessions that Better-Auth keeps outside this database do not end; the user is refused here all the same. Said again, it replaces reason and end; what is left out is none. Nobody bans themselves or the last admin. ${CONDITIONAL}`,
  unbanUser: `For admins. The user can sign in again; what the ban ended stays ended. Safe to repeat. ${CONDITIONAL}`,
  listSessions:
    'For the user and for admins. Sessions that have not expired, newest first. `current` marks the one that the token of this request names.',
  revokeSessions:
    'For the user and for admins. Ends all sessions, or with `except=current` all but the one in which it is asked for. The sessions in which the user impersonates somebody end in either case. `residual` is the latest time at which a token that is not bound to a session could still be accepted.',
  revokeSession:
    "For the user and for admins. Another user's session is not found. A session that has ended is not found either.",
  listUserAccounts: 'For the user and for admins. Never a password or a token of a provider.',
  listAuditEvents:
    'For admins. Each change is recorded in its own transaction and can be neither changed nor removed. With `Accept: application/x-ndjson` all that the filter finds, one line of JSON each, streamed.',
  getHealth: 'Always 200 while the process lives. Look at `parts`.',
  getLiveness: 'Asks nothing of anybody: for the liveness probe.',
  getReadiness:
    'Database, migrations, and a key to verify tokens with: for the readiness probe. An issuer that is away while its keys are at hand is `degraded`, and still ready. 503 at once when the process is told to end.',
  getDatabaseHealth: 'Nothing but the database.',
};

/** By name: an example, and for texts the length that there is a use for. */
export const PARAMETERS: Record<
  string,
  { description?: string; example?: unknown; most?: number }
> = {
  id: {
    description: 'The id of a user, as Better-Auth made it',
    example: 'k3PzVtq0YtN1zXcX1bq9vG5mHq2n8sLd',
    most: 255,
  },
  sessionId: {
    description: 'The id of a session, never its token',
    example: 'Kq1cW9nNn3cJr0mH7yqD2vXo8sTfLbAe',
    most: 255,
  },
  // All headers of a request together may have as much.
  'If-Match': { example: '"k1m2n3o4p5q6r7s8t9u0v1w2x3y"', most: 16_384 },
  provider: { example: 'github', most: 100 },
  page: { example: 1 },
  limit: { description: 'How many on a page', example: 20 },
  cursor: { example: 'eyJzb3J0IjoiLWNyZWF0ZWRBdCJ9.Zm9v', most: 2048 },
  sort: { description: 'A minus sign turns it round; the id decides between equals' },
  role: { example: 'admin', most: 100 },
  banned: { example: true },
  emailVerified: { description: 'Has, or has not, verified the e-mail address', example: true },
  createdFrom: { example: '2026-01-01T00:00:00Z', most: 40 },
  createdTo: { example: '2026-12-31T23:59:59Z', most: 40 },
  q: { example: 'ada' },
  total: {},
  except: {},
  action: { description: 'What was done', example: 'user.banned' },
  actorId: { example: 'k3PzVtq0YtN1zXcX1bq9vG5mHq2n8sLd', most: 255 },
  targetUserId: { example: 'k3PzVtq0YtN1zXcX1bq9vG5mHq2n8sLd', most: 255 },
  from: { description: 'From then on', example: '2026-01-01T00:00:00Z', most: 40 },
  to: { description: 'Until then', example: '2026-12-31T23:59:59Z', most: 40 },
};

export const HEADERS: Record<string, { description: string; example: string }> = {
  'X-Request-Id': {
    description:
      'The id that you sent, where it is sane, else the one that the server made; the log has both',
    example: '8f14e45f-ceea-467f-a0e6-c0f2a8a1b1de',
  },
  RateLimit: {
    description: 'What is left, and for how many seconds (draft-ietf-httpapi-ratelimit-headers)',
    example: '"user";r=299;t=60',
  },
  'RateLimit-Policy': {
    description: 'How many requests there are in how many seconds',
    example: '"user";q=300;w=60',
  },
  'Retry-After': {
    description: 'Seconds to wait before it is worth while to ask again',
    example: '2',
  },
  'Access-Control-Allow-Origin': {
    description: 'The origin of the page that asks, where `CORS_ORIGINS` lists it',
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
