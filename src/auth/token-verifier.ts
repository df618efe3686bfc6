import { LRUCache } from 'lru-cache';
import type { VerifiedToken } from '../access/principal.js';
import type { CpuBudget } from '../rate-limit/cpu-budget.js';
import { digestOf } from './bearer.js';
import { InvalidTokenError, refuse } from './invalid-token.js';
import { findAlgorithm, isKeyId, isOneLine, type Algorithm, type VerificationKey } from './jwk.js';
import { type Members, readToken } from './token-form.js';

/** The source of the issuer's keys. In production it is the KeyRing. */
export interface KeySource {
  /** Returns the key with this `kid` if it may be used now. */
  get(kid: string): VerificationKey | undefined;
  /** Also fetches the keys where that can help. Rejects with KeysUnavailableError. */
  resolve(kid: string): Promise<VerificationKey | undefined>;
}

/** No usable key set: a token can be neither accepted nor called invalid. */
export class KeysUnavailableError extends Error {
  override readonly name = 'KeysUnavailableError';
}

export interface TokenRules {
  issuer: string;
  audiences: readonly string[];
  algorithms: readonly string[];
  leewaySeconds: number;
  maxLifetimeSeconds: number;
  /** The claim that contains the session id. */
  sessionClaim: string;
}

type SignatureBudget = Pick<CpuBudget, 'run'>;

/**
 * Checks that a token is from our issuer, for our audience, and within its lifetime. It checks the
 * cheap parts first (form and header), then the signature, then the claims. So an error never
 * depends on the claims of an unsigned token.
 */
export class TokenVerifier {
  /** For the metrics. Only valid tokens count, so a flood of forged tokens does not change them. */
  readonly lookups = { hits: 0, misses: 0 };
  private readonly verifiedTokens: LRUCache<string, { token: VerifiedToken; key: VerificationKey }>;

  constructor(
    private readonly keys: KeySource,
    private readonly rules: TokenRules,
    private readonly clock: () => number = Date.now,
    maxTokens = 50_000,
  ) {
    if (!rules.issuer || rules.audiences.length === 0 || rules.audiences.includes('')) {
      throw new Error(
        'An issuer and an audience are required: an empty value would match any token.',
      );
    }
    this.verifiedTokens = new LRUCache({ max: maxTokens });
  }

  /**
   * Resolves to the verified token, or rejects with InvalidTokenError and no other error. With a
   * budget, it verifies the signature only while the budget has CPU time left.
   */
  async verify(
    text: string,
    budget?: SignatureBudget,
    digest = digestOf(text),
  ): Promise<VerifiedToken> {
    const token = this.getVerified(digest) ?? (await this.verifyUncached(text, digest, budget));
    const error = this.timeError(token);
    if (error) throw error;
    return token;
  }

  /** Returns a cached token that is within its lifetime. Verifies no signature. */
  getCached(digest: string): VerifiedToken | undefined {
    const token = this.getVerified(digest);
    if (!token || this.timeError(token)) return undefined;
    this.lookups.hits += 1;
    return token;
  }

  /**
   * Returns a cached token that may be expired or not yet valid. Everything else about it is
   * verified. An expired token stays cached, so that repeats of it cost no signature check.
   */
  getVerified(digest: string): VerifiedToken | undefined {
    const cached = this.verifiedTokens.get(digest);
    if (!cached) return undefined;
    if (this.keys.get(cached.token.keyId) === cached.key) return cached.token;
    this.verifiedTokens.delete(digest);
    return undefined;
  }

  private async verifyUncached(
    text: string,
    digest: string,
    budget?: SignatureBudget,
  ): Promise<VerifiedToken> {
    const { header, claims, signingInput, signature } = readToken(text);
    const { algorithm, keyId } = this.checkHeader(header);
    const key = await this.keyFor(keyId);
    // RFC 8725 §3.1: the key determines the algorithm, and the token must agree.
    if (key.algorithm !== algorithm) refuse('algorithm-not-of-this-key');
    const verify = () => key.verifies(signingInput, signature);
    const isGenuine = budget ? budget.run(verify) : verify();
    if (isGenuine === undefined) throw new InvalidTokenError('busy', 'signature-budget');
    if (!isGenuine) refuse('signature');
    const token = this.checkClaims(claims, keyId);
    this.verifiedTokens.set(digest, { token, key });
    this.lookups.misses += 1;
    return token;
  }

  private checkHeader(header: Members): { algorithm: Algorithm; keyId: string } {
    for (const name of REFUSED_HEADERS) if (header.has(name)) refuse('header-member');
    // RFC 8725 §3.11. Better-Auth signs session caches, OAuth and logout tokens with the same keys.
    // They differ by `typ`, and its plain tokens have none.
    if (header.has('typ') && header.get('typ') !== 'JWT') refuse('typ');
    const algorithm = findAlgorithm(header.get('alg'));
    const allowed = this.rules.algorithms.some((name) => findAlgorithm(name) === algorithm);
    if (!algorithm || !allowed) return refuse('algorithm-not-allowed');
    const keyId = header.get('kid');
    if (!isKeyId(keyId)) return refuse('kid');
    return { algorithm, keyId };
  }

  private async keyFor(keyId: string): Promise<VerificationKey> {
    try {
      return this.keys.get(keyId) ?? (await this.keys.resolve(keyId)) ?? refuse('unknown-key');
    } catch (error) {
      if (!(error instanceof KeysUnavailableError)) throw error;
      throw new InvalidTokenError('keys-unavailable', 'keys-unavailable');
    }
  }

  /**
   * RFC 7519 §4.1. It copies only the claims named here, so a claim named `__proto__` has no
   * effect. Times are compared later and `exp` last: "expired" means that all else is valid.
   */
  private checkClaims(claims: Members, keyId: string): VerifiedToken {
    const { issuer, maxLifetimeSeconds, sessionClaim } = this.rules;
    if (claims.get('iss') !== issuer) refuse('iss');
    if (!this.isAudienceAccepted(claims.get('aud'))) refuse('aud');
    // Only an absent claim means "no session". `null` is a value that is not a string.
    const sessionId = claims.has(sessionClaim)
      ? requireOneLine(claims.get(sessionClaim), 'session-claim')
      : null;
    const token: VerifiedToken = Object.freeze({
      subject: requireOneLine(claims.get('sub'), 'sub'),
      sessionId,
      issuedAt: requireSeconds(claims.get('iat'), 'iat'),
      expiresAt: requireSeconds(claims.get('exp'), 'exp'),
      notBefore: claims.has('nbf') ? requireSeconds(claims.get('nbf'), 'nbf') : null,
      keyId,
    });
    if (token.expiresAt - token.issuedAt > maxLifetimeSeconds) refuse('lifetime');
    return token;
  }

  /** RFC 7519 §4.1.3: "a single case-sensitive string" or an array of them that contains ours. */
  private isAudienceAccepted(audience: unknown): boolean {
    const named: unknown[] = Array.isArray(audience) ? audience : [audience];
    return (
      named.every((name) => typeof name === 'string') &&
      named.some((name) => this.rules.audiences.includes(name))
    );
  }

  private timeError({
    issuedAt,
    notBefore,
    expiresAt,
  }: VerifiedToken): InvalidTokenError | undefined {
    const now = this.clock() / 1000;
    const { leewaySeconds } = this.rules;
    if (issuedAt > now + leewaySeconds) return new InvalidTokenError('invalid', 'iat-ahead');
    if (notBefore !== null && notBefore > now + leewaySeconds) {
      return new InvalidTokenError('invalid', 'nbf-ahead');
    }
    // RFC 7519 §4.1.4: "on or after which the JWT MUST NOT be accepted".
    if (expiresAt <= now - leewaySeconds) return new InvalidTokenError('expired', 'expired');
    return undefined;
  }
}

// A token must not contain its own key or the address of one (RFC 8725 §3.10). We support no
// extension (RFC 7515 §4.1.11) and no payload outside base64url (RFC 7797). We also refuse
// compressed, nested and encrypted tokens.
const REFUSED_HEADERS = [
  'crit',
  'b64',
  'jwk',
  'jku',
  'x5u',
  'x5c',
  'x5t',
  'x5t#S256',
  'zip',
  'cty',
  'enc',
];

function requireOneLine(value: unknown, reason: string): string {
  return isOneLine(value, 255) ? value : refuse(reason);
}

/** RFC 7519 §2 allows fractions, but Better-Auth sends none. JSON also allows 1e400. */
function requireSeconds(value: unknown, reason: string): number {
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : refuse(reason);
}
