import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { jest } from '@jest/globals';
import { UserCache } from '../../src/auth/user-cache.js';
import type { AuthRepository, UserWithSession } from '../../src/auth/auth.repository.js';
import { Environment } from '../../src/config/environment.js';
import type { ChangeFeed } from '../../src/database/change-feed.js';

const LOOKUP = { sessionId: 's' };

const userWithSession = (userId: string, banned: boolean): UserWithSession => ({
  user: {
    id: userId,
    email: `${userId}@example.com`,
    emailVerified: true,
    name: 'Ada "the first" Lovelace\n🦉',
    image: null,
    role: 'user,support',
    banned,
    banReason: banned ? 'spam' : null,
    banExpires: banned ? new Date('2030-01-01T00:00:00.001Z') : null,
    createdAt: new Date('2026-01-02T03:04:05.678Z'),
    updatedAt: new Date('2026-02-03T04:05:06.789Z'),
  },
  session: {
    id: 's',
    userId,
    createdAt: new Date(0),
    updatedAt: new Date(1),
    expiresAt: new Date('2026-12-31T23:59:59.999Z'),
    ipAddress: '203.0.113.7',
    userAgent: null,
    impersonatedBy: null,
  },
  impersonator: null,
});

/** A cache over a fake repository. Each query resolves only when the test calls `answerNext`. */
function createCache(...answers: UserWithSession[]) {
  const waiting: (() => void)[] = [];
  const repository = {
    find: () =>
      new Promise((resolve) => {
        const answer = answers.shift();
        waiting.push(() => resolve(answer));
      }),
  } as unknown as AuthRepository;
  const feed = {
    hasLease: true,
    isConnected: true,
    requestLease: () => feed.hasLease,
    subscribe: () => undefined,
  };
  const cache = new UserCache(repository, feed as unknown as ChangeFeed, new Environment());
  const answerNext = async () => {
    waiting.shift()?.();
    await new Promise(setImmediate);
  };
  return { cache, feed, answerNext, pendingQueries: () => waiting.length };
}

describe('load during a change', () => {
  it.each([
    ['that user', (cache: UserCache) => cache.invalidateUser('ada')],
    ['all users', (cache: UserCache) => cache.invalidateAll()],
  ])(
    'repeats the query after a change of %s, and caches only the second result',
    async (_, change) => {
      const { cache, answerNext } = createCache(
        userWithSession('ada', false),
        userWithSession('ada', true),
      );
      const found = cache.load('ada', LOOKUP);
      change(cache);
      await answerNext();
      expect(cache.get('ada', LOOKUP)).toBeUndefined();
      await answerNext();
      expect(await found).toMatchObject({ user: { banned: true } });
      expect(cache.get('ada', LOOKUP)).toMatchObject({ user: { banned: true } });
    },
  );

  it('returns the third result without caching it when every query is invalidated', async () => {
    const { cache, answerNext } = createCache(
      ...[1, 2, 3].map(() => userWithSession('ada', false)),
    );
    const found = cache.load('ada', LOOKUP);
    for (let query = 0; query < 3; query += 1) {
      cache.invalidateUser('ada');
      await answerNext();
    }
    expect(await found).toMatchObject({ user: { id: 'ada' } });
    expect(cache.get('ada', LOOKUP)).toBeUndefined();
  });

  it('caches a user when another user changes', async () => {
    const { cache, answerNext } = createCache(userWithSession('ada', false));
    const found = cache.load('ada', LOOKUP);
    cache.invalidateUser('bob');
    await answerNext();
    expect(await found).toEqual(cache.get('ada', LOOKUP));
  });
});

it('caches nothing while the change feed is not connected', async () => {
  const { cache, feed, answerNext } = createCache(userWithSession('ada', false));
  const found = cache.load('ada', LOOKUP);
  feed.isConnected = false;
  await answerNext();
  await found;
  feed.isConnected = true;
  expect(cache.get('ada', LOOKUP)).toBeUndefined();
});

it('returns a cached entry only while the change feed has a lease', async () => {
  const { cache, feed, answerNext } = createCache(userWithSession('ada', false));
  feed.hasLease = false;
  const found = cache.load('ada', LOOKUP);
  await answerNext();
  await found;
  expect(cache.get('ada', LOOKUP)).toBeUndefined();
  feed.hasLease = true;
  expect(cache.get('ada', LOOKUP)).toMatchObject({ user: { id: 'ada' } });
});

it('does not cache a user under another spelling of the id than the stored one', async () => {
  const { cache, answerNext } = createCache(userWithSession('ada', false));
  const found = cache.load('ADA', LOOKUP);
  await answerNext();
  expect(await found).toMatchObject({ user: { id: 'ada' } });
  expect(cache.get('ADA', LOOKUP)).toBeUndefined();
});

it('caches at most the five newest sessions of one user', async () => {
  const many = Array.from({ length: 6 }, () => userWithSession('ada', false));
  const { cache, answerNext } = createCache(...many);
  for (let session = 0; session < 6; session += 1) {
    const found = cache.load('ada', { sessionId: `s${session}` });
    await answerNext();
    await found;
  }
  expect(cache.get('ada', { sessionId: 's0' })).toBeUndefined();
  expect(cache.get('ada', { sessionId: 's1' })).toMatchObject({ user: { id: 'ada' } });
  expect(cache.get('ada', { sessionId: 's5' })).toMatchObject({ user: { id: 'ada' } });
});

describe('the maximum age of an entry', () => {
  afterEach(() => jest.restoreAllMocks());

  it('starts when the query is sent, and a hit does not extend it', async () => {
    const clock = jest.spyOn(performance, 'now').mockReturnValue(1000);
    const { cache, answerNext } = createCache(userWithSession('ada', false));
    const found = cache.load('ada', LOOKUP);
    clock.mockReturnValue(20_000);
    await answerNext();
    await found;
    for (const now of [20_001, 30_000, 30_999]) {
      clock.mockReturnValue(now);
      expect(cache.get('ada', LOOKUP)).toMatchObject({ user: { id: 'ada' } });
    }
    clock.mockReturnValue(31_000);
    expect(cache.get('ada', LOOKUP)).toBeUndefined();
  });
});

const cacheOf = (users: number, large: (id: string) => UserWithSession) => {
  const environment = Object.assign(new Environment(), { USER_CACHE_MAX: users });
  const repository = { find: (id: string) => Promise.resolve(large(id)) };
  const feed = { requestLease: () => true, isConnected: true, subscribe: () => undefined };
  return new UserCache(
    repository as unknown as AuthRepository,
    feed as unknown as ChangeFeed,
    environment,
  );
};
const withName = (id: string, name: string): UserWithSession => {
  const { user, ...rest } = userWithSession(id, false);
  return { ...rest, user: { ...user, name } };
};

describe('the memory of the cache', () => {
  it.each([
    ['names of 15,500 characters, 20 sessions each', 50_000, 514, 20, 'n'.repeat(15_500)],
    ['the largest names that are cached', 5000, 5000, 5, 'n'.repeat(3000)],
    ['such names in two-byte characters', 5000, 5000, 5, 'ж'.repeat(1500)],
  ])('stays below 32 MB with %s', async (_what, limit, users, sessions, name) => {
    const cache = cacheOf(limit, (id) => withName(id, name));
    const before = heapBytes();
    for (let user = 0; user < users; user += 1) {
      for (let session = 0; session < sessions; session += 1) {
        await cache.load(`u${user}`, { sessionId: `s${session}` });
      }
    }
    expect((heapBytes() - before) / 2 ** 20).toBeLessThan(32);
    // The cache must still be alive when the heap is measured.
    expect(cache.get('nobody', LOOKUP)).toBeUndefined();
  });

  it('holds USER_CACHE_MAX ordinary users', async () => {
    const cache = cacheOf(1000, (id) => userWithSession(id, false));
    for (let user = 0; user < 1000; user += 1) {
      for (const sessionId of ['s1', 's2']) await cache.load(`u${user}`, { sessionId });
    }
    expect(cache.get('u0', { sessionId: 's1' })).toBeDefined();
    expect(cache.get('u999', { sessionId: 's2' })).toBeDefined();
  });
});

/** The size of the reachable heap. */
function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}

/** Loads once, and returns what the cache then has. */
const loadOnce = async (user: UserWithSession, lookup = LOOKUP as typeof LOOKUP | null) => {
  const { cache, answerNext } = createCache(user);
  const found = cache.load('ada', lookup);
  await answerNext();
  await found;
  return cache.get('ada', lookup);
};

describe('cached entry', () => {
  it('does not cache a user with a very large picture', async () => {
    const large = userWithSession('ada', false);
    const image = 'x'.repeat(20_000);
    expect(await loadOnce({ ...large, user: { ...large.user, image } })).toBeUndefined();
  });

  it('does not cache an impersonated session, which also depends on the impersonator', async () => {
    const ada = userWithSession('ada', false);
    const session = ada.session && { ...ada.session, impersonatedBy: 'root' };
    expect(await loadOnce({ ...ada, session })).toBeUndefined();
  });

  it('returns frozen objects', async () => {
    const { user, session } = (await loadOnce(userWithSession('ada', false))) ?? {};
    expect([Object.isFrozen(user), Object.isFrozen(session)]).toEqual([true, true]);
  });

  it.each([false, true])('returns every member as it was loaded (banned: %s)', async (banned) => {
    expect(await loadOnce(userWithSession('ada', banned))).toEqual(userWithSession('ada', banned));
  });

  it('does not cache that a session is missing', async () => {
    expect(await loadOnce({ ...userWithSession('ada', false), session: null })).toBeUndefined();
  });

  it('serves a token without a session id from a session only if that is old enough', async () => {
    const { cache, answerNext } = createCache(userWithSession('ada', false));
    const found = cache.load('ada', { maxCreatedAt: new Date(0) });
    await answerNext();
    await found;
    expect(cache.get('ada', { maxCreatedAt: new Date(0) })).toMatchObject({ user: { id: 'ada' } });
    expect(cache.get('ada', { maxCreatedAt: new Date(-1) })).toBeUndefined();
  });

  it('caches a user without a session', async () => {
    const alone = { ...userWithSession('ada', false), session: null };
    expect(await loadOnce(alone, null)).toEqual(alone);
  });
});
