import { Injectable } from '@nestjs/common';
import { LRUCache } from 'lru-cache';
import { Environment } from '../config/environment.js';
import { ChangeFeed, type ChangeSubscriber } from '../database/change-feed.js';
import { pack, unpack } from './packed-user.js';
import { AuthRepository, type UserWithSession, type SessionLookup } from './auth.repository.js';

/** A question to the database that is being answered. */
interface PendingLoad {
  userId: string;
  /** Told of a change meanwhile: the answer may be from before it. */
  invalidated: boolean;
}

/**
 * Who a token speaks for: from memory while the change feed would tell of a change, else from the
 * database. Memory only ever vouches. That there is no such user or session, or that one may not go on,
 * is asked of the database each time.
 */
@Injectable()
export class UserCache implements ChangeSubscriber {
  private readonly entries: LRUCache<string, CacheEntry[]>;
  private readonly maxAgeMs: number;
  private readonly unpackedEntries: CacheEntry[] = [];
  private nextSlot = 0;
  private readonly pendingLoads = new Set<PendingLoad>();

  constructor(
    private readonly principals: AuthRepository,
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

  get(userId: string, witness: SessionLookup | null): UserWithSession | undefined {
    if (!this.feed.isLive) return undefined;
    const name = cacheKey(witness);
    const known = this.entries.get(userId)?.find((each) => each.key === name);
    if (!known || performance.now() - known.queriedAt >= this.maxAgeMs) return undefined;
    const standing = this.unpackEntry(known);
    return matchesLookup(standing, witness) ? standing : undefined;
  }

  /** Who asks once mostly asks again soon: of the last few the object is kept, too. */
  private unpackEntry(known: CacheEntry): UserWithSession {
    if (known.value) return known.value;
    known.value = unpack(known.packed);
    const oldest = this.unpackedEntries[this.nextSlot];
    if (oldest) oldest.value = undefined;
    this.unpackedEntries[this.nextSlot] = known;
    this.nextSlot = (this.nextSlot + 1) % MAX_UNPACKED;
    return known.value;
  }

  async load(userId: string, witness: SessionLookup | null): Promise<UserWithSession | null> {
    for (let attempt = 1; ; attempt += 1) {
      const reading = { userId, invalidated: false };
      // Before the query is sent: what it reads is at least as new.
      const askedAt = performance.now();
      this.pendingLoads.add(reading);
      try {
        const standing = await this.principals.find(userId, witness);
        if (!reading.invalidated) {
          this.store(userId, witness, standing, askedAt);
          return standing;
        }
        if (attempt === MAX_LOAD_ATTEMPTS) return standing;
      } finally {
        this.pendingLoads.delete(reading);
      }
    }
  }

  invalidateUser(id: string): void {
    this.entries.delete(id);
    for (const reading of this.pendingLoads) if (reading.userId === id) reading.invalidated = true;
  }

  invalidateAll(): void {
    this.entries.clear();
    for (const reading of this.pendingLoads) reading.invalidated = true;
  }

  private store(
    userId: string,
    witness: SessionLookup | null,
    standing: UserWithSession | null,
    askedAt: number,
  ): void {
    if (!standing || (witness && !standing.session)) return;
    // It also depends on the impersonator, whose changes do not invalidate this user.
    if (standing.session !== null && standing.session.impersonatedBy !== null) return;
    // An id that the database writes otherwise is not the one that it will tell of.
    if (!this.feed.isLive || standing.user.id !== userId) return;
    const packed = pack(standing);
    const bytes = bytesOf(packed);
    if (bytes > MAX_ENTRY_BYTES) return;
    const name = cacheKey(witness);
    const others = this.entries.get(userId)?.filter((each) => each.key !== name) ?? [];
    // The oldest goes, so that nobody fills the memory with sessions of one user.
    const kept = others.slice(1 - MAX_SESSIONS_PER_USER);
    this.entries.set(userId, [
      ...kept,
      { key: name, packed, bytes, queriedAt: askedAt, value: undefined },
    ]);
  }
}

/** A list and no map for each user: most have one, and there are tens of thousands. */
interface CacheEntry {
  key: string;
  packed: string;
  bytes: number;
  /** When the query was sent, by `performance.now()`. */
  queriedAt: number;
  /** Unpacked, where it was asked for lately. */
  value: UserWithSession | undefined;
}

const MAX_LOAD_ATTEMPTS = 3;
const MAX_SESSIONS_PER_USER = 5;
const MAX_UNPACKED = 1000;
/** A usual entry has less than 1 KB. */
const MAX_ENTRY_BYTES = 4096;
/** The whole cache has at most this for each user that it may hold. */
const MAX_AVERAGE_BYTES = 2048;
/** The object around a text, its name and its place in the list. */
const ENTRY_OVERHEAD_BYTES = 200;

/** V8 keeps a text in one byte per character only if all of them are Latin-1. */
function bytesOf(packed: string): number {
  // oxlint-disable-next-line no-control-regex -- the range is Latin-1
  const bytesPerCharacter = /[^\x00-\xff]/.test(packed) ? 2 : 1;
  return packed.length * bytesPerCharacter + ENTRY_OVERHEAD_BYTES;
}

/** One for each session that a token can name, and one for all tokens that name none. */
function cacheKey(witness: SessionLookup | null): string {
  return witness !== null && 'sessionId' in witness ? witness.sessionId : '';
}

/** A session that was there when one token was issued may be too young for another. */
function matchesLookup({ session }: UserWithSession, witness: SessionLookup | null): boolean {
  if (witness === null || 'sessionId' in witness) return true;
  return session !== null && session.createdAt <= witness.maxCreatedAt;
}
