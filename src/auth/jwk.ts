import {
  constants,
  createPublicKey,
  verify,
  type KeyObject,
  type SigningOptions,
  type webcrypto,
} from 'node:crypto';

const ALGORITHM_NAMES = ['EdDSA', 'ES256', 'ES512', 'RS256', 'PS256'] as const;

export type Algorithm = (typeof ALGORITHM_NAMES)[number];

interface AlgorithmFacts {
  kty: string;
  crv: string | undefined;
  digest: string | null;
  options: SigningOptions;
}

/**
 * The signature algorithms of RFC 7518 and RFC 8037 that Better-Auth signs with. Each entry has the
 * kind of key and the options of node:crypto.
 *
 * We use node:crypto and not jose, although jose is installed. The key's algorithm selects the
 * entry, never the token's, so only one call of jose's work remains. The synchronous call verifies
 * 1.2 to 2 times as many tokens a second on one core as WebCrypto's thread pool. (Ed25519: 7,500
 * against 6,100 at best and 4,800 one by one.)
 */
const ALGORITHMS: Record<Algorithm, AlgorithmFacts> = {
  EdDSA: { kty: 'OKP', crv: 'Ed25519', digest: null, options: {} },
  // RFC 7518 §3.4: the signature is R and S concatenated, each as long as the curve's order. With
  // this encoding OpenSSL refuses every other length, and so the DER form.
  ES256: { kty: 'EC', crv: 'P-256', digest: 'sha256', options: { dsaEncoding: 'ieee-p1363' } },
  ES512: { kty: 'EC', crv: 'P-521', digest: 'sha512', options: { dsaEncoding: 'ieee-p1363' } },
  RS256: {
    kty: 'RSA',
    crv: undefined,
    digest: 'sha256',
    options: { padding: constants.RSA_PKCS1_PADDING },
  },
  // RFC 7518 §3.5: "The size of the salt value is the same size as the hash function output."
  PS256: {
    kty: 'RSA',
    crv: undefined,
    digest: 'sha256',
    options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 },
  },
};

/** A public key of the issuer, accepted for one algorithm and imported once. */
export class VerificationKey {
  constructor(
    readonly id: string,
    readonly algorithm: Algorithm,
    readonly publicKey: KeyObject,
  ) {}

  /** Whether the key's owner signed exactly these bytes. Takes 30 to 130 µs, and 2 ms for ES512. */
  verifies(signingInput: Uint8Array, signature: Uint8Array): boolean {
    const { digest, options } = ALGORITHMS[this.algorithm];
    try {
      return verify(digest, signingInput, { key: this.publicKey, ...options }, signature);
    } catch {
      // OpenSSL throws for some keys, such as one with too long an RSA exponent.
      return false;
    }
  }

  equals(other: VerificationKey): boolean {
    return (
      this.id === other.id &&
      this.algorithm === other.algorithm &&
      this.publicKey.equals(other.publicKey)
    );
  }
}

export interface RejectedKey {
  kid: string;
  reason: string;
}

export interface SelectedKeys {
  keys: Map<string, VerificationKey>;
  rejected: RejectedKey[];
}

/**
 * Separates a published key set (RFC 7517 §5) into keys that may verify tokens and rejected keys. A
 * bad key does not affect the others.
 */
export function selectKeys(
  published: readonly unknown[],
  algorithms: readonly string[],
): SelectedKeys {
  const jwks = published.map((jwk) => (isObject(jwk) ? jwk : {}));
  const kids = jwks.map((jwk) => jwk['kid']);
  const allowed = new Set(algorithms.map(findAlgorithm));
  const keys = new Map<string, VerificationKey>();
  const rejected: RejectedKey[] = [];
  for (const [index, jwk] of jwks.entries()) {
    try {
      const key = parseKey(jwk, kids, allowed);
      keys.set(key.id, key);
    } catch (error) {
      if (!(error instanceof UnusableKeyError)) throw error;
      const kid = isKeyId(jwk['kid']) ? jwk['kid'] : `(key ${index + 1} of ${jwks.length})`;
      rejected.push({ kid, reason: error.message });
    }
  }
  return { keys, rejected };
}

/** Finds an algorithm by its name. RFC 9864 §2.2 renames `EdDSA` to `Ed25519`. */
export function findAlgorithm(name: unknown): Algorithm | undefined {
  if (name === 'Ed25519') return 'EdDSA';
  return ALGORITHM_NAMES.find((supported) => supported === name);
}

export function isKeyId(value: unknown): value is string {
  return isOneLine(value, 128);
}

/**
 * Whether this is text that can be stored, logged and compared. It has no control characters
 * (PostgreSQL refuses NUL) and no lone surrogate, which encoding would replace.
 */
export function isOneLine(value: unknown, maxLength: number): value is string {
  return (
    typeof value === 'string' &&
    value.length > 0 &&
    value.length <= maxLength &&
    value.isWellFormed() &&
    !/\p{Cc}/u.test(value)
  );
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

class UnusableKeyError extends Error {}

// RFC 7518 §6.2.2, §6.3.2, §6.4.1 and RFC 8037 §2: members of private and secret keys only.
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];

function parseKey(
  jwk: Record<string, unknown>,
  kids: readonly unknown[],
  allowed: ReadonlySet<Algorithm | undefined>,
): VerificationKey {
  const { kid, use, key_ops: operations } = jwk;
  if (!isKeyId(kid)) throw new UnusableKeyError('its kid is not 1 to 128 plain characters');
  // Two keys with one `kid` are ambiguous, so we reject both. If we took the first or the last, an
  // attacker who can add a key to the set could take over a `kid`.
  if (kids.indexOf(kid) !== kids.lastIndexOf(kid))
    throw new UnusableKeyError('its kid is not unique');
  if (PRIVATE_MEMBERS.some((member) => Object.hasOwn(jwk, member))) {
    throw new UnusableKeyError('its private part was published: every reader can sign');
  }
  // RFC 7517 §4.2 and §4.3: a key for encryption must not verify signatures.
  if (use !== undefined && use !== 'sig') throw new UnusableKeyError('its use is not sig');
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) {
    throw new UnusableKeyError('its key_ops are without verify');
  }
  const algorithm = algorithmOf(jwk);
  if (!allowed.has(algorithm)) throw new UnusableKeyError(`${algorithm} is not allowed here`);
  const publicKey = importKey(jwk);
  if (jwk['kty'] === 'RSA') checkRsa(publicKey);
  if (jwk['kty'] === 'OKP') checkEd25519(publicKey);
  return new VerificationKey(kid, algorithm, publicKey);
}

/**
 * RFC 8725 §3.1: "Each key MUST be used with exactly one algorithm". A curve determines its
 * algorithm. An RSA key without `alg` fits RS256 and PS256, so we reject it rather than guess.
 */
function algorithmOf(jwk: Record<string, unknown>): Algorithm {
  const { alg, kty, crv } = jwk;
  if (alg === undefined && kty === 'RSA')
    throw new UnusableKeyError('it is an RSA key without alg');
  const algorithm =
    alg === undefined
      ? ALGORITHM_NAMES.find((name) => isKeyFor(name, kty, crv))
      : findAlgorithm(alg);
  if (!algorithm) throw new UnusableKeyError('its alg, kty or crv is not one of ours');
  if (!isKeyFor(algorithm, kty, crv)) throw new UnusableKeyError(`it is no key for ${algorithm}`);
  return algorithm;
}

function isKeyFor(algorithm: Algorithm, kty: unknown, crv: unknown): boolean {
  const expected = ALGORITHMS[algorithm];
  return kty === expected.kty && crv === expected.crv;
}

/** Node refuses an EC point that is not on its curve, and an `x` or `y` of the wrong length. */
function importKey(jwk: Record<string, unknown>): KeyObject {
  const key: webcrypto.JsonWebKey = {};
  for (const member of ['kty', 'crv', 'x', 'y', 'n', 'e'] as const) {
    const value = jwk[member];
    if (typeof value === 'string') key[member] = value;
  }
  try {
    return createPublicKey({ key, format: 'jwk' });
  } catch {
    throw new UnusableKeyError('its public part cannot be read');
  }
}

function checkRsa(key: KeyObject): void {
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  // RFC 7518 §3.3: "A key of size 2048 bits or larger MUST be used". The upper bounds, here and
  // below, limit the time that one signature check takes.
  if (modulusLength < 2048) throw new UnusableKeyError('it is RSA of fewer than 2048 bits');
  if (modulusLength > 8192) throw new UnusableKeyError('it is RSA of more than 8192 bits');
  // With e = 1 a signature is the padded message itself. With e = 3 sloppy padding can be forged.
  if (publicExponent < 65_537n || publicExponent > 0xffff_ffffn || publicExponent % 2n === 0n) {
    throw new UnusableKeyError('its RSA exponent is not an odd number from 65537 to 2^32');
  }
}

/**
 * Rejects points of small order. RFC 8032 §5.1.7 multiplies the key by a hash of the message. For
 * a point of small order that has at most eight results, so anyone can find a valid signature.
 *
 * Points of order 1, 2 and 4 have y = 1, −1 and 0. A point of order 8 doubles to y = 0. The curve
 * equation −x² + y² = 1 − (121665/121666)·x²y² then gives `isOfOrder8`. The check ignores the sign
 * bit and works modulo p. So it also rejects other encodings (y + p, "negative zero").
 *
 * OpenSSL 3.5 refuses such signatures itself. OpenSSL 3.0 accepted them in our tests.
 */
function checkEd25519(key: KeyObject): void {
  const p = 2n ** 255n - 19n;
  const littleEndian = Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url');
  const bigEndian = Buffer.from(littleEndian.toReversed()).toString('hex');
  const y = BigInt(`0x${bigEndian}`) % 2n ** 255n;
  const y2 = (y * y) % p;
  const isOfOrder1to4 = y2 === 0n || y2 === 1n;
  const isOfOrder8 = (121_666n * (2n * y2 - 1n) - 121_665n * y2 * y2) % p === 0n;
  if (isOfOrder1to4 || isOfOrder8)
    throw new UnusableKeyError('it is an Ed25519 point of small order');
}
