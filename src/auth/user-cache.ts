import { Injectable } from '@nestjs/common';
import { LRUCache } from 'lru-cache';
import { Environment } from '../config/environment.js';
import { ChangeFeed, type ChangeSubscriber } from '../database/change-feed.js';
import { pack, unpack } from './packed-user.js';
import { AuthRepository, type UserWithSession, type SessionLookup } from './auth.repository.js';

/** A database query in progress. */
interface PendingLoad {
  userId: string;
  /** The user changed meanwhile, so the result may be older than the change. */
  invalidated: boolean;
}

/**
 * Caches users with their sessions while the change feed has a lease. A cached entry can allow a
 * request, but never refuse one. Only a database query decides that a user or a session is missing,
 * banned or expired.
 */
@Injectable()
export class UserCache implements ChangeSubscriber {
  /** For the metrics. */
  readonly lookups = { hits: 0, misses: 0 };
  private readonly entries: LRUCache<string, CacheEntry[]>;
  private readonly maxAgeMs: number;
  private readonly unpackedEntries: CacheEntry[] = [];
  private nextSlot = 0;
  private readonly pendingLoads = new Set<PendingLoad>();

  constructor(
    private readonly repository: AuthRepository,
    private readonly feed: ChangeFeed,
    environment: Environment,
  ) {
    const { USER_CACHE_MAX, CACHE_MAX_AGE_SECONDS } = environment;
    this.entries = new LRUCache({
      max: USER_CACHE_MAX,
      maxSize: USER_CACHE_MAX * MAX_AVERAGE_BYTES,
      sizeCalculation: (entries) => entries.reduce((sum, { bytes }) => sum + bytes, 0),
    });
    this.maxAgeMs = CACHE_MAX_AGE_SECONDS * 1000;
    feed.subscribe(this);
  }

  get(userId: string, lookup: SessionLookup | null): UserWithSession | undefined {
    const now = performance.now();
    if (!this.feed.requestLease(now)) return undefined;
    const key = cacheKey(lookup);
    const entry = this.entries.get(userId)?.find((candidate) => candidate.key === key);
    if (!entry || now - entry.queriedAt >= this.maxAgeMs) return undefined;
    const cached = this.unpackEntry(entry);
    if (!matchesLookup(cached, lookup)) return undefined;
    this.lookups.hits += 1;
    return cached;
  }

  /** Keeps the objects of the last entries, because most users send several requests in a row. */
  private unpackEntry(entry: CacheEntry): UserWithSession {
    if (entry.value) return entry.value;
    entry.value = unpack(entry.packed);
    const oldest = this.unpackedEntries[this.nextSlot];
    if (oldest) oldest.value = undefined;
    this.unpackedEntries[this.nextSlot] = entry;
    this.nextSlot = (this.nextSlot + 1) % MAX_UNPACKED;
    return entry.value;
  }

  async load(userId: string, lookup: SessionLookup | null): Promise<UserWithSession | null> {
    this.lookups.misses += 1;
    for (let attempt = 1; ; attempt += 1) {
      const pending = { userId, invalidated: false };
      // Taken before the query is sent, so the result is at least this new.
      const queriedAt = performance.now();
      this.pendingLoads.add(pending);
      try {
        const loaded = await this.repository.find(userId, lookup);
        if (!pending.invalidated) {
          this.store(userId, lookup, loaded, queriedAt);
          return loaded;
        }
        if (attempt === MAX_LOAD_ATTEMPTS) return loaded;
      } finally {
        this.pendingLoads.delete(pending);
      }
    }
  }

  invalidateUser(id: string): void {
    this.entries.delete(id);
    for (const pending of this.pendingLoads) if (pending.userId === id) pending.invalidated = true;
  }

  invalidateAll(): void {
    this.entries.clear();
    for (const pending of this.pendingLoads) pending.invalidated = true;
  }

  private store(
    userId: string,
    lookup: SessionLookup | null,
    loaded: UserWithSession | null,
    queriedAt: number,
  ): void {
    if (!loaded || (lookup && !loaded.session)) return;
    // This result also depends on the impersonator, whose changes do not invalidate this user.
    if (loaded.session !== null && loaded.session.impersonatedBy !== null) return;
    // The change feed uses the stored id. Another spelling of it would never be invalidated.
    if (!this.feed.isConnected || loaded.user.id !== userId) return;
    const packed = pack(loaded);
    const bytes = bytesOf(packed);
    if (bytes > MAX_ENTRY_BYTES) return;
    const key = cacheKey(lookup);
    const others = this.entries.get(userId)?.filter((entry) => entry.key !== key) ?? [];
    // The oldest entry is dropped, so that the sessions of one user cannot fill the cache.
    const kept = others.slice(1 - MAX_SESSIONS_PER_USER);
    this.entries.set(userId, [...kept, { key, packed, bytes, queriedAt, value: undefined }]);
  }
}

/** Each user has an array of these. Most have one entry, and a map would need more memory. */
interface CacheEntry {
  key: string;
  packed: string;
  bytes: number;
  /** When the query was sent, by `performance.now()`. */
  queriedAt: number;
  /** The unpacked object, kept only for recently used entries. */
  value: UserWithSession | undefined;
}

const MAX_LOAD_ATTEMPTS = 3;
const MAX_SESSIONS_PER_USER = 5;
const MAX_UNPACKED = 1000;
/** A typical entry has less than 1 KB. */
const MAX_ENTRY_BYTES = 4096;
/** The limit of the whole cache is this, times USER_CACHE_MAX. */
const MAX_AVERAGE_BYTES = 2048;
/** The object around the packed text, its key and its array element. */
const ENTRY_OVERHEAD_BYTES = 200;

/** V8 stores a text in one byte per character only if all its characters are Latin-1. */
function bytesOf(packed: string): number {
  // oxlint-disable-next-line no-control-regex -- the range is Latin-1
  const bytesPerCharacter = /[^\x00-\xff]/.test(packed) ? 2 : 1;
  return packed.length * bytesPerCharacter + ENTRY_OVERHEAD_BYTES;
}

/** One key for each session id, and one for all tokens without a session id. */
function cacheKey(lookup: SessionLookup | null): string {
  return lookup !== null && 'sessionId' in lookup ? lookup.sessionId : '';
}

/** A session that existed when one token was issued may be too new for another token. */
function matchesLookup({ session }: UserWithSession, lookup: SessionLookup | null): boolean {
  if (lookup === null || 'sessionId' in lookup) return true;
  return session !== null && session.createdAt <= lookup.maxCreatedAt;
}
