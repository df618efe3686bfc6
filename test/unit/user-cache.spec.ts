import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { jest } from '@jest/globals';
import { UserCache } from '../../src/auth/user-cache.js';
import type { AuthRepository, UserWithSession } from '../../src/auth/auth.repository.js';
import { Environment } from '../../src/config/environment.js';
import type { ChangeFeed } from '../../src/database/change-feed.js';

const WITNESS = { sessionId: 's' };

const standing = (userId: string, banned: boolean): UserWithSession => ({
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

/** A database that answers when it is told to: only so can a change come at the worst moment. */
function storeOn(...answers: UserWithSession[]) {
  const waiting: (() => void)[] = [];
  const principals = {
    find: () =>
      new Promise((resolve) => {
        const answer = answers.shift();
        waiting.push(() => resolve(answer));
      }),
  } as unknown as AuthRepository;
  const feed = { isHearing: true, subscribe: () => undefined };
  const store = new UserCache(principals, feed as unknown as ChangeFeed, new Environment());
  const answerNext = async () => {
    waiting.shift()?.();
    await new Promise(setImmediate);
  };
  return { store, feed, answerNext, asked: () => waiting.length };
}

describe('a reading that a change overtakes', () => {
  it.each([
    ['of that user', (store: UserCache) => store.invalidateUser('ada')],
    ['of everybody', (store: UserCache) => store.invalidateAll()],
  ])('%s is read again, and only then remembered', async (_, change) => {
    const { store, answerNext } = storeOn(standing('ada', false), standing('ada', true));
    const found = store.load('ada', WITNESS);
    change(store);
    await answerNext();
    expect(store.get('ada', WITNESS)).toBeUndefined();
    await answerNext();
    expect(await found).toMatchObject({ user: { banned: true } });
    expect(store.get('ada', WITNESS)).toMatchObject({ user: { banned: true } });
  });

  it('again and again is answered, and not remembered', async () => {
    const { store, answerNext } = storeOn(...[1, 2, 3].map(() => standing('ada', false)));
    const found = store.load('ada', WITNESS);
    for (let reading = 0; reading < 3; reading += 1) {
      store.invalidateUser('ada');
      await answerNext();
    }
    expect(await found).toMatchObject({ user: { id: 'ada' } });
    expect(store.get('ada', WITNESS)).toBeUndefined();
  });

  it('of somebody else is remembered', async () => {
    const { store, answerNext } = storeOn(standing('ada', false));
    const found = store.load('ada', WITNESS);
    store.invalidateUser('bob');
    await answerNext();
    expect(await found).toEqual(store.get('ada', WITNESS));
  });
});

it('remembers nothing, and recalls nothing, while nothing is told', async () => {
  const { store, feed, answerNext } = storeOn(standing('ada', false), standing('ada', false));
  const first = store.load('ada', WITNESS);
  feed.isHearing = false;
  await answerNext();
  await first;
  feed.isHearing = true;
  expect(store.get('ada', WITNESS)).toBeUndefined();

  const second = store.load('ada', WITNESS);
  await answerNext();
  await second;
  expect(store.get('ada', WITNESS)).toMatchObject({ user: { id: 'ada' } });
  feed.isHearing = false;
  expect(store.get('ada', WITNESS)).toBeUndefined();
});

it('does not remember a user by another spelling of the id than the one that will be told', async () => {
  const { store, answerNext } = storeOn(standing('ada', false));
  const found = store.load('ADA', WITNESS);
  await answerNext();
  expect(await found).toMatchObject({ user: { id: 'ada' } });
  expect(store.get('ADA', WITNESS)).toBeUndefined();
});

it('caches at most five sessions of one user, the newest', async () => {
  const many = Array.from({ length: 6 }, () => standing('ada', false));
  const { store, answerNext } = storeOn(...many);
  for (let session = 0; session < 6; session += 1) {
    const found = store.load('ada', { sessionId: `s${session}` });
    await answerNext();
    await found;
  }
  expect(store.get('ada', { sessionId: 's0' })).toBeUndefined();
  expect(store.get('ada', { sessionId: 's1' })).toMatchObject({ user: { id: 'ada' } });
  expect(store.get('ada', { sessionId: 's5' })).toMatchObject({ user: { id: 'ada' } });
});

describe('the maximum age of an entry', () => {
  afterEach(() => jest.restoreAllMocks());

  it('starts when the query is sent, and a hit does not extend it', async () => {
    const clock = jest.spyOn(performance, 'now').mockReturnValue(1000);
    const { store, answerNext } = storeOn(standing('ada', false));
    const found = store.load('ada', WITNESS);
    clock.mockReturnValue(20_000);
    await answerNext();
    await found;
    for (const now of [20_001, 30_000, 30_999]) {
      clock.mockReturnValue(now);
      expect(store.get('ada', WITNESS)).toMatchObject({ user: { id: 'ada' } });
    }
    clock.mockReturnValue(31_000);
    expect(store.get('ada', WITNESS)).toBeUndefined();
  });
});

const storeOf = (users: number, large: (id: string) => UserWithSession) => {
  const environment = Object.assign(new Environment(), { USER_CACHE_MAX: users });
  const principals = { find: (id: string) => Promise.resolve(large(id)) };
  const feed = { isHearing: true, subscribe: () => undefined };
  return new UserCache(
    principals as unknown as AuthRepository,
    feed as unknown as ChangeFeed,
    environment,
  );
};
const withName = (id: string, name: string): UserWithSession => {
  const { user, ...rest } = standing(id, false);
  return { ...rest, user: { ...user, name } };
};

describe('the memory of the cache', () => {
  it.each([
    ['names of 15,500 characters, 20 sessions each', 50_000, 514, 20, 'n'.repeat(15_500)],
    ['the largest names that are cached', 5000, 5000, 5, 'n'.repeat(3000)],
    ['such names in two-byte characters', 5000, 5000, 5, 'ж'.repeat(1500)],
  ])('stays below 32 MB with %s', async (_what, limit, users, sessions, name) => {
    const cache = storeOf(limit, (id) => withName(id, name));
    const before = heapBytes();
    for (let user = 0; user < users; user += 1) {
      for (let session = 0; session < sessions; session += 1) {
        await cache.load(`u${user}`, { sessionId: `s${session}` });
      }
    }
    expect((heapBytes() - before) / 2 ** 20).toBeLessThan(32);
    // The cache must still be alive when the heap is measured.
    expect(cache.get('nobody', WITNESS)).toBeUndefined();
  });

  it('holds as many ordinary users as USER_CACHE_MAX says', async () => {
    const cache = storeOf(1000, (id) => standing(id, false));
    for (let user = 0; user < 1000; user += 1) {
      for (const sessionId of ['s1', 's2']) await cache.load(`u${user}`, { sessionId });
    }
    expect(cache.get('u0', { sessionId: 's1' })).toBeDefined();
    expect(cache.get('u999', { sessionId: 's2' })).toBeDefined();
  });
});

/** What is reachable, in bytes. */
function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}

/** What is known after one reading. */
const remember = async (user: UserWithSession, witness = WITNESS as typeof WITNESS | null) => {
  const { store, answerNext } = storeOn(user);
  const found = store.load('ada', witness);
  await answerNext();
  await found;
  return store.get('ada', witness);
};

describe('what is remembered', () => {
  it('is nobody whose name or picture is as large as a book', async () => {
    const large = standing('ada', false);
    const image = 'x'.repeat(20_000);
    expect(await remember({ ...large, user: { ...large.user, image } })).toBeUndefined();
  });

  it('is nobody in an impersonated session, which depends on the impersonator as well', async () => {
    const ada = standing('ada', false);
    const session = ada.session && { ...ada.session, impersonatedBy: 'root' };
    expect(await remember({ ...ada, session })).toBeUndefined();
  });

  it('is the same for all, and nobody can change it', async () => {
    const { user, session } = (await remember(standing('ada', false))) ?? {};
    expect([Object.isFrozen(user), Object.isFrozen(session)]).toEqual([true, true]);
  });

  it.each([false, true])('is what was read, to the last member (banned: %s)', async (banned) => {
    expect(await remember(standing('ada', banned))).toEqual(standing('ada', banned));
  });

  it('may be a user without a session', async () => {
    const alone = { ...standing('ada', false), session: null };
    expect(await remember(alone, null)).toEqual(alone);
  });
});
