import jwksRsa from 'jwks-rsa';
import { selectKeys, type RejectedKey, type VerificationKey } from './jwk.js';
import { fetchKeySet, requireSecureUrl } from './jwks-fetcher.js';
import { KeysUnavailableError, type KeySource } from './token-verifier.js';

export interface KeyRingOptions {
  url: string;
  /** Unknown `kid`s make the ring ask the issuer at most once in this time. */
  cooldownSeconds: number;
  refreshSeconds: number;
  /** How long the last good set serves while the issuer is away. */
  maxStaleSeconds: number;
  algorithms: readonly string[];
}

export interface KeyRingStatus {
  /** `degraded`: the last attempt failed, and keys fetched earlier serve on. */
  state: 'ready' | 'degraded' | 'unavailable';
  keys: number;
  lastSuccessAt: Date | null;
  lastError: string | null;
}

export interface KeyRingLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

/**
 * The issuer's public keys, kept at hand. The set is fetched whole and replaced whole, by one fetch
 * at a time, and only by a set with a usable key in it.
 */
export class KeyRing implements KeySource {
  private readonly jwks: jwksRsa.JwksClient;
  private readonly stopping = new AbortController();
  private keys: ReadonlyMap<string, VerificationKey> = new Map();
  private rejected: RejectedKey[] = [];
  private fetchedAt = Number.NEGATIVE_INFINITY;
  private lastSuccessAt: Date | null = null;
  private lastError: string | null = null;
  private failures = 0;
  private inFlight: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  private lastFetchStartedAt = Number.NEGATIVE_INFINITY;
  private waiting = 0;

  /** `clock` counts milliseconds and only forwards: setting the system's clock ages no key. */
  constructor(
    private readonly options: KeyRingOptions,
    private readonly log: KeyRingLog,
    private readonly clock: () => number = () => performance.now(),
  ) {
    requireSecureUrl(options.url);
    // Its cache and its rate limit stay off: strangers' made-up `kid`s fill the one and use up the
    // other, and then it is real users who are turned away.
    this.jwks = new jwksRsa.JwksClient({
      jwksUri: options.url,
      cache: false,
      rateLimit: false,
      fetcher: (url) => fetchKeySet(url, this.stopping.signal),
    });
  }

  /** Begins to fetch and to refresh. Resolves after the first attempt, however it went. */
  start(): Promise<void> {
    return this.refresh();
  }

  stop(): void {
    this.stopping.abort();
    clearTimeout(this.timer);
  }

  /** The key of that name, if it may be used now; the issuer is not asked. */
  get(kid: string): VerificationKey | undefined {
    return this.hasFreshKeys() ? this.keys.get(kid) : undefined;
  }

  /**
   * The key of that name, after asking the issuer where that is due: Better-Auth signs with a new
   * key before anyone could have fetched it. During the cool-down an unknown `kid` is refused at
   * once. To let it wait would let a flood of them pile up, and so a rotated key is found by its
   * first use in quiet times, and under a flood by its first use after the cool-down.
   */
  async resolve(kid: string): Promise<VerificationKey | undefined> {
    const known = this.get(kid);
    if (known) return known;
    if (this.waiting < MAX_WAITING) {
      this.waiting += 1;
      await this.refreshFor(kid).finally(() => (this.waiting -= 1));
    }
    const found = this.get(kid);
    // While the issuer does not answer, a key that is not here may be its newest.
    if (!found && (!this.hasFreshKeys() || this.lastError !== null))
      throw new KeysUnavailableError();
    return found;
  }

  status(): KeyRingStatus {
    const fresh = this.hasFreshKeys();
    return {
      state: fresh ? (this.lastError === null ? 'ready' : 'degraded') : 'unavailable',
      keys: fresh ? this.keys.size : 0,
      lastSuccessAt: this.lastSuccessAt,
      lastError: this.lastError,
    };
  }

  private hasFreshKeys(): boolean {
    return this.clock() - this.fetchedAt < this.options.maxStaleSeconds * 1000;
  }

  /** A refresh that was under way already may have read the set before the key was in it. */
  private async refreshFor(kid: string): Promise<void> {
    const wasUnderWay = this.inFlight !== undefined;
    await this.refreshOnce();
    if (wasUnderWay && this.lastError === null && !this.get(kid)) await this.refreshOnce();
  }

  /** Joins the fetch in flight, begins one if the last such was long enough ago, or does nothing. */
  private async refreshOnce(): Promise<void> {
    if (this.inFlight) return this.inFlight;
    const pause = this.hasFreshKeys() ? this.options.cooldownSeconds * 1000 : NO_KEYS_RETRY_MS;
    if (this.clock() - this.lastFetchStartedAt < pause) return;
    this.lastFetchStartedAt = this.clock();
    await this.refresh();
  }

  private refresh(): Promise<void> {
    this.inFlight ??= this.fetchKeys().finally(() => {
      this.inFlight = undefined;
      this.scheduleRefresh();
    });
    return this.inFlight;
  }

  private async fetchKeys(): Promise<void> {
    if (this.stopping.signal.aborted) return;
    try {
      const published = await this.jwks.getKeys();
      if (!Array.isArray(published)) throw new Error('the answer is not a key set');
      const { keys, rejected: leftOut } = selectKeys(published, this.options.algorithms);
      this.reportRejected(leftOut);
      if (keys.size === 0) throw new Error('the key set has no usable key');
      this.replaceKeys(keys);
    } catch (error) {
      this.reportFailure(error);
    }
  }

  private replaceKeys(fetched: Map<string, VerificationKey>): void {
    const before = this.keys;
    for (const [kid, key] of fetched) {
      // A key that has not changed stays the same object, by which a proven token is recognised.
      const held = before.get(kid);
      if (held?.equals(key)) fetched.set(kid, held);
    }
    this.keys = fetched;
    this.fetchedAt = this.clock();
    this.lastSuccessAt = new Date();
    const added = [...fetched.values()].filter((key) => before.get(key.id) !== key);
    const removed = [...before.values()].filter((key) => fetched.get(key.id) !== key);
    if (added.length > 0 || removed.length > 0) {
      const details = { added: added.map(({ id }) => id), removed: removed.map(({ id }) => id) };
      this.log.info(details, 'The keys of the issuer have changed');
    }
    if (this.lastError !== null) this.log.info({}, 'The keys of the issuer are fetched again');
    this.lastError = null;
    this.failures = 0;
  }

  /** A key is warned about when it turns up, not each time that it is still there. */
  private reportRejected(leftOut: RejectedKey[]): void {
    for (const { kid, reason } of leftOut) {
      if (this.rejected.some((known) => known.kid === kid && known.reason === reason)) continue;
      this.log.warn({ kid, reason }, 'A key of the issuer is left out');
    }
    this.rejected = leftOut;
  }

  private reportFailure(error: unknown): void {
    if (this.stopping.signal.aborted) return;
    const message = describe(error);
    this.failures += 1;
    if (this.lastError !== message) {
      const { url } = this.options;
      this.log.warn({ url, error: message }, 'The keys of the issuer could not be fetched');
    }
    this.lastError = message;
  }

  private scheduleRefresh(): void {
    clearTimeout(this.timer);
    if (this.stopping.signal.aborted) return;
    this.timer = setTimeout(() => void this.refresh(), this.nextRefreshMs()).unref();
  }

  private nextRefreshMs(): number {
    const refresh = this.options.refreshSeconds * 1000;
    if (this.failures === 0) return refresh;
    // With nothing to serve from, readiness waits for this alone: try again within the half second.
    if (!this.hasFreshKeys()) {
      return Math.min(FIRST_RETRY_MS * 2 ** (this.failures - 1), NO_KEYS_RETRY_MS);
    }
    const untilStale = this.fetchedAt + this.options.maxStaleSeconds * 1000 - this.clock();
    return Math.min(RETRY_MS * 2 ** (this.failures - 1), refresh, untilStale);
  }
}

const FIRST_RETRY_MS = 100;
const NO_KEYS_RETRY_MS = 500;
const RETRY_MS = 2_000;
// How many requests wait for the issuer, two fetches of two seconds at most; a flood would go on meanwhile.
const MAX_WAITING = 1_000;

/** fetch() says "fetch failed" and keeps what happened in the cause. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  return `${error.message}: ${cause.message || ('code' in cause ? String(cause.code) : cause.name)}`;
}
