import jwksRsa from 'jwks-rsa';
import { inSpan } from '../tracing/tracing.js';
import { selectKeys, type RejectedKey, type VerificationKey } from './jwk.js';
import { fetchKeySet, requireSecureUrl } from './jwks-fetcher.js';
import { KeysUnavailableError, type KeySource } from './token-verifier.js';

export interface KeyRingOptions {
  url: string;
  /** An unknown `kid` triggers a fetch at most once per cooldown. */
  cooldownSeconds: number;
  refreshSeconds: number;
  /** How long the last good key set is used while the issuer is unavailable. */
  maxStaleSeconds: number;
  algorithms: readonly string[];
}

export interface KeyRingStatus {
  /** `degraded`: the last fetch failed, and keys from an earlier fetch are in use. */
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
 * Caches the issuer's public keys. It has at most one fetch in flight. A fetch replaces the whole
 * set, and only if the new set has a usable key.
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

  /** `clock` is monotonic, in milliseconds, so changes of the system clock do not age the keys. */
  constructor(
    private readonly options: KeyRingOptions,
    private readonly log: KeyRingLog,
    private readonly clock: () => number = () => performance.now(),
  ) {
    requireSecureUrl(options.url);
    // Its cache and its rate limit stay off. Invented `kid`s would fill the cache and exhaust the
    // rate limit, and then real users would be rejected.
    this.jwks = new jwksRsa.JwksClient({
      jwksUri: options.url,
      cache: false,
      rateLimit: false,
      fetcher: (url) => fetchKeySet(url, this.stopping.signal),
    });
  }

  /** Starts the periodic fetch. Resolves after the first attempt, successful or not. */
  start(): Promise<void> {
    return this.refresh();
  }

  stop(): void {
    this.stopping.abort();
    clearTimeout(this.timer);
  }

  /** Returns the cached key with this `kid` if it may be used now. Never fetches. */
  get(kid: string): VerificationKey | undefined {
    return this.hasFreshKeys() ? this.keys.get(kid) : undefined;
  }

  /**
   * Returns the key with this `kid`, after a fetch if the key is unknown. Better-Auth signs with a
   * new key before any client can have fetched it. During the cooldown, an unknown `kid` is refused
   * immediately, because a flood of waiting requests would pile up. Without a flood, the first use
   * of a rotated key fetches it. During a flood, the first use after the cooldown fetches it.
   */
  async resolve(kid: string): Promise<VerificationKey | undefined> {
    const cached = this.get(kid);
    if (cached) return cached;
    if (this.waiting < MAX_WAITING) {
      this.waiting += 1;
      await this.refreshFor(kid).finally(() => (this.waiting -= 1));
    }
    const fetched = this.get(kid);
    // While the issuer is unavailable, an unknown key may be its newest.
    if (!fetched && (!this.hasFreshKeys() || this.lastError !== null))
      throw new KeysUnavailableError();
    return fetched;
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

  /** The time since the last successful fetch. Infinite before the first one. */
  get ageMs(): number {
    return this.clock() - this.fetchedAt;
  }

  private hasFreshKeys(): boolean {
    return this.ageMs < this.options.maxStaleSeconds * 1000;
  }

  /** Fetches again if the fetch in flight may have read the set before the key was published. */
  private async refreshFor(kid: string): Promise<void> {
    const wasInFlight = this.inFlight !== undefined;
    await this.refreshOnce();
    if (wasInFlight && this.lastError === null && !this.get(kid)) await this.refreshOnce();
  }

  /** Joins the fetch in flight, or starts one unless the cooldown still runs. */
  private async refreshOnce(): Promise<void> {
    if (this.inFlight) return this.inFlight;
    const cooldownMs = this.hasFreshKeys() ? this.options.cooldownSeconds * 1000 : NO_KEYS_RETRY_MS;
    if (this.clock() - this.lastFetchStartedAt < cooldownMs) return;
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
      const published = await inSpan('fetch key set', () => this.jwks.getKeys());
      if (!Array.isArray(published)) throw new Error('the response is not a key set');
      const { keys, rejected } = selectKeys(published, this.options.algorithms);
      this.reportRejected(rejected);
      if (keys.size === 0) throw new Error('the key set has no usable key');
      this.replaceKeys(keys);
    } catch (error) {
      this.reportFailure(error);
    }
  }

  private replaceKeys(fetched: Map<string, VerificationKey>): void {
    const before = this.keys;
    for (const [kid, key] of fetched) {
      // An unchanged key stays the same object, because cached tokens are compared by it.
      const unchanged = before.get(kid);
      if (unchanged?.equals(key)) fetched.set(kid, unchanged);
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
    if (this.lastError !== null) this.log.info({}, 'The keys of the issuer can be fetched again');
    this.lastError = null;
    this.failures = 0;
  }

  /** Warns about a rejected key when it appears, not at every fetch. */
  private reportRejected(rejected: RejectedKey[]): void {
    for (const { kid, reason } of rejected) {
      if (this.rejected.some((key) => key.kid === kid && key.reason === reason)) continue;
      this.log.warn({ kid, reason }, 'A key of the issuer is rejected');
    }
    this.rejected = rejected;
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
    // Without keys the service is not ready, so the next attempt follows within half a second.
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
// A request waits for two fetches of two seconds at most, so a flood must not pile up.
const MAX_WAITING = 1_000;

/** The message of fetch() is "fetch failed", and the real error is in its cause. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  return `${error.message}: ${cause.message || ('code' in cause ? String(cause.code) : cause.name)}`;
}
