import { Injectable } from '@nestjs/common';
import { LRUCache } from 'lru-cache';
import { Environment } from '../config/environment.js';
import { ChangeFeed, type Remembering } from '../database/change-feed.js';
import { pack, unpack } from './packed-standing.js';
import { PrincipalsRepository, type Standing, type Witness } from './principals.repository.js';

/** A question to the database that is being answered. */
interface Reading {
  userId: string;
  /** Told of a change meanwhile: the answer may be from before it. */
  overtaken: boolean;
}

/**
 * Who a token speaks for: from memory while the change feed would tell of a change, else from the
 * database. Memory only ever vouches. That there is no such user or session, or that one may not go on,
 * is asked of the database each time.
 */
@Injectable()
export class PrincipalStore implements Remembering {
  private readonly remembered: LRUCache<string, Remembered[]>;
  private readonly maxAgeMs: number;
  private readonly opened: Remembered[] = [];
  private turn = 0;
  private readonly readings = new Set<Reading>();

  constructor(
    private readonly principals: PrincipalsRepository,
    private readonly feed: ChangeFeed,
    environment: Environment,
  ) {
    const { REMEMBERED_USERS, CACHE_MAX_AGE_SECONDS } = environment;
    this.remembered = new LRUCache({
      max: REMEMBERED_USERS,
      maxSize: REMEMBERED_USERS * MAX_AVERAGE_BYTES,
      sizeCalculation: (entries) => entries.reduce((sum, { bytes }) => sum + bytes, 0),
    });
    this.maxAgeMs = CACHE_MAX_AGE_SECONDS * 1000;
    feed.subscribe(this);
  }

  recall(userId: string, witness: Witness | null): Standing | undefined {
    if (!this.feed.isHearing) return undefined;
    const name = nameOf(witness);
    const known = this.remembered.get(userId)?.find((each) => each.name === name);
    if (!known || performance.now() - known.askedAt >= this.maxAgeMs) return undefined;
    const standing = this.open(known);
    return canVouch(standing, witness) ? standing : undefined;
  }

  /** Who asks once mostly asks again soon: of the last few the object is kept, too. */
  private open(known: Remembered): Standing {
    if (known.standing) return known.standing;
    known.standing = unpack(known.packed);
    const oldest = this.opened[this.turn];
    if (oldest) oldest.standing = undefined;
    this.opened[this.turn] = known;
    this.turn = (this.turn + 1) % MOST_OPENED;
    return known.standing;
  }

  async find(userId: string, witness: Witness | null): Promise<Standing | null> {
    for (let attempt = 1; ; attempt += 1) {
      const reading = { userId, overtaken: false };
      // Before the query is sent: what it reads is at least as new.
      const askedAt = performance.now();
      this.readings.add(reading);
      try {
        const standing = await this.principals.find(userId, witness);
        if (!reading.overtaken) {
          this.remember(userId, witness, standing, askedAt);
          return standing;
        }
        if (attempt === MOST_READINGS) return standing;
      } finally {
        this.readings.delete(reading);
      }
    }
  }

  userChanged(id: string): void {
    this.remembered.delete(id);
    for (const reading of this.readings) if (reading.userId === id) reading.overtaken = true;
  }

  everythingChanged(): void {
    this.remembered.clear();
    for (const reading of this.readings) reading.overtaken = true;
  }

  private remember(
    userId: string,
    witness: Witness | null,
    standing: Standing | null,
    askedAt: number,
  ): void {
    if (!standing || (witness && !standing.session)) return;
    // It also depends on the impersonator, whose changes do not invalidate this user.
    if (standing.session !== null && standing.session.impersonatedBy !== null) return;
    // An id that the database writes otherwise is not the one that it will tell of.
    if (!this.feed.isHearing || standing.user.id !== userId) return;
    const packed = pack(standing);
    const bytes = bytesOf(packed);
    if (bytes > MAX_ENTRY_BYTES) return;
    const name = nameOf(witness);
    const others = this.remembered.get(userId)?.filter((each) => each.name !== name) ?? [];
    // The oldest goes, so that nobody fills the memory with sessions of one user.
    const kept = others.slice(1 - MAX_SESSIONS_PER_USER);
    this.remembered.set(userId, [...kept, { name, packed, bytes, askedAt, standing: undefined }]);
  }
}

/** A list and no map for each user: most have one, and there are tens of thousands. */
interface Remembered {
  name: string;
  packed: string;
  bytes: number;
  /** When the query was sent, by `performance.now()`. */
  askedAt: number;
  /** Unpacked, where it was asked for lately. */
  standing: Standing | undefined;
}

const MOST_READINGS = 3;
const MAX_SESSIONS_PER_USER = 5;
const MOST_OPENED = 1000;
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
function nameOf(witness: Witness | null): string {
  return witness !== null && 'sessionId' in witness ? witness.sessionId : '';
}

/** A session that was there when one token was issued may be too young for another. */
function canVouch({ session }: Standing, witness: Witness | null): boolean {
  if (witness === null || 'sessionId' in witness) return true;
  return session !== null && session.createdAt <= witness.notAfter;
}
