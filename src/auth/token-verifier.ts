import { hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { VerifiedToken } from '../access/principal.js';
import type { CpuBudget } from '../rate-limit/cpu-budget.js';
import { InvalidTokenError, refuse } from './invalid-token.js';
import { findAlgorithm, isKeyId, isOneLine, type Algorithm, type VerificationKey } from './jwk.js';
import { MAX_TOKEN_LENGTH, type Members, readToken } from './token-form.js';

/** Where the verifier gets the issuer's keys: the KeyRing, and in tests a handful of them. */
export interface KeySource {
  /** The key of that name, if it may be used now. */
  get(kid: string): VerificationKey | undefined;
  /** The same, after asking the issuer where that can help. Throws KeysUnavailable. */
  resolve(kid: string): Promise<VerificationKey | undefined>;
}

/** There is no key set to judge by: nobody's token is known to be good, or to be bad. */
export class KeysUnavailableError extends Error {
  override readonly name = 'KeysUnavailable';
}

export interface TokenRules {
  issuer: string;
  audiences: readonly string[];
  algorithms: readonly string[];
  leewaySeconds: number;
  maxLifetimeSeconds: number;
  /** The claim that ties a token to a session. */
  sessionClaim: string;
}

type SignatureBudget = Pick<CpuBudget, 'run'>;

/**
 * Decides whether a token was issued by our issuer, for us, and is in time. First what is cheap
 * (form and header), then the signature, then the claims, so that nothing an unsigned token says
 * about itself is ever answered.
 */
export class TokenVerifier {
  private readonly verifiedTokens: LRUCache<string, { token: VerifiedToken; key: VerificationKey }>;

  constructor(
    private readonly keys: KeySource,
    private readonly rules: TokenRules,
    private readonly clock: () => number = Date.now,
    maxRemembered = 50_000,
  ) {
    if (!rules.issuer || rules.audiences.length === 0 || rules.audiences.includes('')) {
      throw new Error('An issuer and an audience are needed: an empty one would match any token.');
    }
    this.verifiedTokens = new LRUCache({ max: maxRemembered });
  }

  /**
   * Resolves to what the token says, or rejects with TokenRefused and with nothing else. With a budget,
   * the signature is verified only while that has time left.
   */
  async verify(text: string, budget?: SignatureBudget): Promise<VerifiedToken> {
    const token = this.getVerified(text) ?? (await this.verifyUncached(text, budget));
    const fault = this.timeError(token);
    if (fault) throw fault;
    return token;
  }

  /** A token that was verified before and is in time, without its signature being verified again. */
  getCached(text: string): VerifiedToken | undefined {
    const token = this.getVerified(text);
    return token && !this.timeError(token) ? token : undefined;
  }

  /**
   * The same for a token that may be out of time: everything else about it is verified. An expired token
   * stays in the cache, so that sending it again and again costs no signature.
   */
  getVerified(text: string): VerifiedToken | undefined {
    if (text.length > MAX_TOKEN_LENGTH) return undefined;
    const digest = cacheKey(text);
    const held = this.verifiedTokens.get(digest);
    if (!held) return undefined;
    if (this.keys.get(held.token.keyId) === held.key) return held.token;
    this.verifiedTokens.delete(digest);
    return undefined;
  }

  private async verifyUncached(text: string, budget?: SignatureBudget): Promise<VerifiedToken> {
    const { header, claims, signingInput, signature } = readToken(text);
    const { algorithm, keyId } = this.checkHeader(header);
    const key = await this.keyFor(keyId);
    // RFC 8725 §3.1: the key, not the token, says which algorithm it is for.
    if (key.algorithm !== algorithm) refuse('algorithm-not-of-this-key');
    const verify = () => key.verifies(signingInput, signature);
    const isGenuine = budget ? budget.run(verify) : verify();
    if (isGenuine === undefined) throw new InvalidTokenError('busy', 'signature-budget');
    if (!isGenuine) refuse('signature');
    const token = this.checkClaims(claims, keyId);
    this.verifiedTokens.set(cacheKey(text), { token, key });
    return token;
  }

  private checkHeader(header: Members): { algorithm: Algorithm; keyId: string } {
    for (const name of REFUSED_HEADERS) if (header.has(name)) refuse('header-member');
    // RFC 8725 §3.11. Better-Auth signs session caches, OAuth and logout tokens with the same keys
    // and tells them apart by `typ`; its plain tokens have none.
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
   * RFC 7519 §4.1. Only what is named here is copied, so a claim called `__proto__` goes nowhere.
   * Times are compared later and `exp` last: "expired" means that nothing else was wrong.
   */
  private checkClaims(claims: Members, keyId: string): VerifiedToken {
    const { issuer, maxLifetimeSeconds, sessionClaim } = this.rules;
    if (claims.get('iss') !== issuer) refuse('iss');
    if (!this.isAudienceAccepted(claims.get('aud'))) refuse('aud');
    // Only a claim that is not there means "no session"; `null` is a value, and no string.
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

  /** RFC 7519 §4.1.3: "a single case-sensitive string" or a list of such, one of them ours. */
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

// A token must not bring its own key or say where to fetch one (RFC 8725 §3.10), nor be read in a
// way of its own: we support no extension (RFC 7515 §4.1.11), no payload outside base64url
// (RFC 7797), nothing compressed, nested or encrypted.
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

/** RFC 7519 §2 allows fractions; no issuer of ours sends one, and 1e400 is a number in JSON too. */
function requireSeconds(value: unknown, reason: string): number {
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : refuse(reason);
}

// The memory is named by a hash so that it holds no token that could be replayed, and stays small.
function cacheKey(token: string): string {
  return hash('sha256', token, 'base64url');
}
