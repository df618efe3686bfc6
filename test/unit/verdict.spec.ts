import { AccessPolicy } from '../../src/access/access-policy.js';
import type { SessionRow, UserRow } from '../../src/access/principal.js';
import type { UserWithSession } from '../../src/auth/auth.repository.js';
import { verdict, type VerdictSettings } from '../../src/auth/verdict.js';

const NOW = new Date('2026-01-01T00:00:00Z');
const LATER = new Date(NOW.getTime() + 1);
const FOREVER = new Date(Number.NaN);

const SID = { sessionId: 'session-1' };
const NO_SID = { sessionId: null };

type Binding = VerdictSettings['SESSION_BINDING'];

const BINDINGS: Binding[] = ['prefer-sid', 'require-sid', 'token-only'];

const POLICY = new AccessPolicy({
  ADMIN_ROLES: ['admin'],
  ADMIN_USER_IDS: ['admin-by-id'],
});

const userRow = (change: Partial<UserRow> = {}): UserRow => ({
  id: 'user-1',
  email: 'ada@example.com',
  emailVerified: true,
  name: 'Ada',
  image: null,
  role: 'user',
  banned: null,
  banReason: null,
  banExpires: null,
  createdAt: NOW,
  updatedAt: NOW,
  ...change,
});

const sessionRow = (change: Partial<SessionRow> = {}): SessionRow => ({
  id: 'session-1',
  userId: 'user-1',
  createdAt: NOW,
  updatedAt: NOW,
  expiresAt: LATER,
  ipAddress: null,
  userAgent: null,
  impersonatedBy: null,
  ...change,
});

const found = (change: Partial<UserWithSession> = {}): UserWithSession => ({
  user: userRow(),
  session: sessionRow(),
  impersonator: null,
  ...change,
});

const admin = (
  user: Partial<UserRow> = {},
  session: Partial<SessionRow> | null = {},
): UserWithSession =>
  found({
    user: userRow({ id: 'admin-1', role: 'admin', ...user }),
    session: session && sessionRow({ id: 'session-2', userId: 'admin-1', ...session }),
  });

const impersonatedBy = (impersonator: UserWithSession | null) =>
  found({ session: sessionRow({ impersonatedBy: 'admin-1' }), impersonator });

describe('verdict on a token', () => {
  // The columns are the bindings `prefer-sid`, `require-sid` and `token-only`.
  it.each<[string, typeof SID | typeof NO_SID, UserWithSession | null, string[]]>([
    ['an active session', SID, found(), ['allowed', 'allowed', 'allowed']],
    ['no session id', NO_SID, found(), ['allowed', 'no-session-claim', 'allowed']],
    ['no user', SID, null, ['no-such-user', 'no-such-user', 'no-such-user']],
    [
      'no user and no session id',
      NO_SID,
      null,
      ['no-such-user', 'no-session-claim', 'no-such-user'],
    ],
    ['a deleted session', SID, found({ session: null }), ['no-session', 'no-session', 'allowed']],
    [
      'a session that expires now',
      SID,
      found({ session: sessionRow({ expiresAt: NOW }) }),
      ['no-session', 'no-session', 'allowed'],
    ],
    [
      'a ban without an end',
      SID,
      found({ user: userRow({ banned: true }) }),
      ['banned', 'banned', 'banned'],
    ],
    [
      'a ban until infinity',
      SID,
      found({ user: userRow({ banned: true, banExpires: FOREVER }) }),
      ['banned', 'banned', 'banned'],
    ],
    [
      'a ban that still runs',
      SID,
      found({ user: userRow({ banned: true, banExpires: LATER }) }),
      ['banned', 'banned', 'banned'],
    ],
    [
      'a ban that ends now',
      SID,
      found({ user: userRow({ banned: true, banExpires: NOW }) }),
      ['allowed', 'allowed', 'allowed'],
    ],
    [
      'a ban and a deleted session',
      SID,
      found({ user: userRow({ banned: true }), session: null }),
      ['banned', 'banned', 'banned'],
    ],
    [
      'a ban and no session id',
      NO_SID,
      found({ user: userRow({ banned: true }) }),
      ['banned', 'no-session-claim', 'banned'],
    ],
    ['an active impersonator', SID, impersonatedBy(admin()), ['allowed', 'allowed', 'allowed']],
    [
      'an impersonator who is an admin by id',
      SID,
      impersonatedBy(admin({ id: 'admin-by-id', role: 'user' })),
      ['allowed', 'allowed', 'allowed'],
    ],
    [
      'an impersonated session and no session id',
      NO_SID,
      impersonatedBy(admin()),
      ['allowed', 'no-session-claim', 'allowed'],
    ],
    ...(
      [
        ['a deleted impersonator', null],
        ['a demoted impersonator', admin({ role: 'user' })],
        ['a banned impersonator', admin({ banned: true })],
        ['an impersonator without a session', admin({}, null)],
        ['an impersonator whose session expires now', admin({}, { expiresAt: NOW })],
        ['an impersonator who is impersonated', admin({}, { impersonatedBy: 'admin-2' })],
      ] as const
    ).map(([title, impersonator]): [string, typeof SID, UserWithSession, string[]] => [
      title,
      SID,
      impersonatedBy(impersonator),
      ['no-session', 'no-session', 'allowed'],
    ]),
    [
      'an expired session of an active impersonator',
      SID,
      found({
        session: sessionRow({ impersonatedBy: 'admin-1', expiresAt: NOW }),
        impersonator: admin(),
      }),
      ['no-session', 'no-session', 'allowed'],
    ],
  ])('decides about %s by each session binding', (_title, token, rows, verdicts) => {
    expect(
      BINDINGS.map((SESSION_BINDING) => verdict(token, rows, { SESSION_BINDING }, POLICY, NOW)),
    ).toEqual(verdicts);
  });
});
