import { readFileSync } from 'node:fs';
import { generateKeyPairSync, type KeyObject, type webcrypto } from 'node:crypto';
import { selectKeys } from '../../src/auth/jwk.js';
import { JWKS, kidOf, NAMES } from '../support/token-cases.js';

const [ED25519, ES256, ES512, RS256, PS256] = JWKS;

const P256_OFF_CURVE = Buffer.alloc(32, 5).toString('base64url');

describe('selection of keys', () => {
  it.each(NAMES)('accepts the %s key of a real Better-Auth server', (name) => {
    const { keys, rejected } = selectKeys(realKeySet(name), NAMES);

    expect([...keys.values()].map(({ algorithm }) => algorithm)).toEqual([name]);
    expect(rejected).toEqual([]);
  });

  it('accepts all keys of a set, each for one algorithm', () => {
    const { keys } = selectKeys(JWKS, NAMES);

    expect([...keys].map(([kid, { algorithm }]) => [kid, algorithm])).toEqual(
      NAMES.map((name) => [kidOf(name), name]),
    );
  });

  it.each([
    ['use sig', { ...ED25519, use: 'sig' }],
    ['key_ops verify', { ...ED25519, key_ops: ['verify'] }],
    ['a member that means nothing to us', { ...ED25519, note: 'ours', exp: 1 }],
    ['a kid of 128 characters', { ...ED25519, kid: 'k'.repeat(128) }],
    ['a kid outside ASCII', { ...ED25519, kid: 'ключ' }],
    ['RSA of 4096 bits', { ...rsa(4096), alg: 'RS256', kid: 'large' }],
    ['alg Ed25519, the new name', { ...ED25519, alg: 'Ed25519' }],
  ])('accepts a key with %s', (_, jwk) => {
    expect(selectKeys([jwk], NAMES).keys.size).toBe(1);
  });

  it.each([
    [ED25519, 'EdDSA'],
    [ES256, 'ES256'],
    [ES512, 'ES512'],
  ])('derives the algorithm from the curve if alg is absent', (jwk, algorithm) => {
    const { keys } = selectKeys([{ ...jwk, alg: undefined }], NAMES);

    expect([...keys.values()][0]?.algorithm).toBe(algorithm);
  });

  it.each([
    ['oct', { kty: 'oct', k: 'c2VjcmV0', alg: 'HS256', kid: 'bad' }, 'private'],
    ['oct without its secret', { kty: 'oct', alg: 'HS256', kid: 'bad' }, 'not one of ours'],
    ['Ed25519 with its private part', privateJwk(generateKeyPairSync('ed25519')), 'private'],
    ['EC with its private part', privateJwk(ecPair()), 'private'],
    ['RSA with its private part', { ...privateJwk(rsaPair(2048)), alg: 'RS256' }, 'private'],
    ['RSA with one prime', { ...RS256, p: 'AQAB' }, 'private'],
    ['RSA of 1024 bits', { ...rsa(1024), alg: 'RS256' }, '2048'],
    ['RSA of 2047 bits', { ...rsa(2047), alg: 'RS256' }, '2048'],
    ['RSA of 1024 bits behind zeros', { ...zeroPadded(rsa(1024)), alg: 'RS256' }, '2048'],
    ['RSA of 16384 bits', { ...RS256, n: Buffer.alloc(2048, 255).toString('base64url') }, '8192'],
    ['RSA with e = 1', { ...RS256, e: 'AQ' }, 'exponent'],
    ['RSA with e = 3', { ...rsa(2048, 3), alg: 'PS256' }, 'exponent'],
    ['RSA with e = 17', { ...rsa(2048, 17), alg: 'PS256' }, 'exponent'],
    ['RSA with e = 65535', { ...RS256, e: '__8' }, 'exponent'],
    ['RSA with an even e', { ...RS256, e: 'AQAC' }, 'exponent'],
    ['RSA with e as long as n', { ...RS256, e: RS256?.n }, 'exponent'],
    ['RSA without alg', { ...RS256, alg: undefined }, 'without alg'],
    ['RSA without n', { ...RS256, n: undefined }, 'cannot be read'],
    ['RSA with n no string', { ...RS256, n: 5 }, 'cannot be read'],
    ['RSA for RS512', { ...RS256, alg: 'RS512' }, 'not one of ours'],
    ['RSA for RSA-OAEP', { ...RS256, alg: 'RSA-OAEP' }, 'not one of ours'],
    ['RSA for ES256', { ...RS256, alg: 'ES256' }, 'no key for ES256'],
    ['RSA for EdDSA', { ...RS256, alg: 'EdDSA' }, 'no key for EdDSA'],
    ['EC P-256 for ES512', { ...ES256, alg: 'ES512' }, 'no key for ES512'],
    ['EC P-256 for RS256', { ...ES256, alg: 'RS256' }, 'no key for RS256'],
    ['EC P-384', { ...ecPair('P-384').publicKey.export({ format: 'jwk' }) }, 'not one of ours'],
    ['EC off its curve', { ...ES256, y: P256_OFF_CURVE }, 'cannot be read'],
    ['EC at infinity', { ...ES256, x: 'AA', y: 'AA' }, 'cannot be read'],
    ['EC with the point of another curve', { ...ES512, crv: 'P-256', alg: 'ES256' }, 'be read'],
    ['EC without y', { ...ES256, y: undefined }, 'cannot be read'],
    ['Ed448', generateKeyPairSync('ed448').publicKey.export({ format: 'jwk' }), 'not one of ours'],
    ['Ed448 that says EdDSA', { ...ED25519, crv: 'Ed448' }, 'no key for EdDSA'],
    ['X25519', generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' }), 'not one of'],
    ['Ed25519 for ES256', { ...ED25519, alg: 'ES256' }, 'no key for ES256'],
    ['Ed25519 of 31 bytes', { ...ED25519, x: Buffer.alloc(31, 9).toString('base64url') }, 'read'],
    ['Ed25519 of 33 bytes', { ...ED25519, x: Buffer.alloc(33, 9).toString('base64url') }, 'read'],
    ['use enc', { ...ED25519, use: 'enc' }, 'use'],
    ['use null', { ...ED25519, use: null }, 'use'],
    ['use in capitals', { ...ED25519, use: 'SIG' }, 'use'],
    ['key_ops encrypt', { ...ED25519, key_ops: ['encrypt'] }, 'key_ops'],
    ['key_ops sign', { ...ED25519, key_ops: ['sign'] }, 'key_ops'],
    ['key_ops of nothing', { ...ED25519, key_ops: [] }, 'key_ops'],
    ['key_ops no list', { ...ED25519, key_ops: 'verify' }, 'key_ops'],
    ['alg none', { ...ED25519, alg: 'none' }, 'not one of ours'],
    ['alg HS256', { ...ED25519, alg: 'HS256' }, 'not one of ours'],
    ['alg null', { ...ED25519, alg: null }, 'not one of ours'],
    ['alg that every object has', { ...ED25519, alg: 'constructor' }, 'not one of ours'],
    ['no kty', { ...ED25519, kty: undefined }, 'no key for'],
  ])('rejects a bad key and keeps the others: %s', (_, jwk, reason) => {
    const { keys, rejected } = selectKeys([{ ...jwk, kid: 'bad' }, ED25519], NAMES);

    expect([...keys.keys()]).toEqual([kidOf('EdDSA')]);
    expect(rejected).toEqual([{ kid: 'bad', reason: expect.stringContaining(reason) }]);
  });

  it.each([undefined, null, '', 7, ['key'], 'k'.repeat(129), 'a\u0000', 'a\nb', '\ud800'])(
    'rejects a key with the kid %j and reports its position',
    (kid) => {
      const { keys, rejected } = selectKeys([ES256, { ...ED25519, kid }], NAMES);

      expect(keys.size).toBe(1);
      expect(rejected).toEqual([{ kid: '(key 2 of 2)', reason: expect.stringContaining('kid') }]);
    },
  );

  it.each([null, 7, 'key', [ED25519], true])('rejects %j, which is not a key', (jwk) => {
    const { keys, rejected } = selectKeys([jwk, ED25519], NAMES);

    expect(keys.size).toBe(1);
    expect(rejected).toHaveLength(1);
  });

  it.each([
    ['of two sorts', [ED25519, { ...ES256, kid: kidOf('EdDSA') }]],
    ['the second not for verifying', [ED25519, { ...PS256, kid: kidOf('EdDSA'), use: 'enc' }]],
    ['the same key twice', [ED25519, ED25519]],
  ])('rejects both keys with the same kid: %s', (_, jwks) => {
    const { keys, rejected } = selectKeys([...jwks, RS256], NAMES);

    expect([...keys.keys()]).toEqual([kidOf('RS256')]);
    expect(rejected.map(({ kid }) => kid)).toEqual([kidOf('EdDSA'), kidOf('EdDSA')]);
  });

  it('rejects keys for algorithms that are not allowed', () => {
    const { keys, rejected } = selectKeys(JWKS, ['Ed25519', 'ES256']);

    expect([...keys.keys()]).toEqual([kidOf('EdDSA'), kidOf('ES256')]);
    expect(rejected).toContainEqual({ kid: kidOf('RS256'), reason: 'RS256 is not allowed here' });
  });

  describe('Ed25519 points of small order', () => {
    // Every way to write the eight points, little-endian: y = 1, −1, 0 and the two of order 8, with
    // either sign bit; then y + p for the two that fit in 255 bits.
    const YS = [
      '0100000000000000000000000000000000000000000000000000000000000000',
      'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
      '0000000000000000000000000000000000000000000000000000000000000000',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
      'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    ];
    const POINTS = YS.flatMap((y) => [Buffer.from(y, 'hex'), negated(Buffer.from(y, 'hex'))]);

    it.each(POINTS.map((point) => point.toString('hex')))(
      'rejects the point of small order %s',
      (point) => {
        const x = Buffer.from(point, 'hex').toString('base64url');

        const { keys, rejected } = selectKeys([{ ...ED25519, x }], NAMES);

        expect(keys.size).toBe(0);
        expect(rejected[0]?.reason).toContain('small order');
      },
    );

    it('accepts the neighbours of these points and a thousand real keys', () => {
      const neighbours = YS.slice(0, 5).map((y) => {
        const point = Buffer.from(y, 'hex');
        point.writeUInt8((point.readUInt8(0) + 3) % 256, 0);
        return point.toString('base64url');
      });
      const real = Array.from({ length: 1_000 }, () => {
        const { publicKey } = generateKeyPairSync('ed25519');
        return publicKey.export({ format: 'jwk' }).x;
      });

      const accepted = [...neighbours, ...real].filter(
        (x) => selectKeys([{ ...ED25519, x }], NAMES).keys.size === 1,
      );

      expect(accepted).toHaveLength(1_005);
    });
  });
});

function realKeySet(name: string): unknown[] {
  const url = new URL(`../fixtures/better-auth/jwks-${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, 'utf8')).keys;
}

function ecPair(namedCurve = 'P-256') {
  return generateKeyPairSync('ec', { namedCurve });
}

function rsaPair(modulusLength: number, publicExponent = 65_537) {
  return generateKeyPairSync('rsa', { modulusLength, publicExponent });
}

function rsa(modulusLength: number, publicExponent?: number): webcrypto.JsonWebKey {
  return rsaPair(modulusLength, publicExponent).publicKey.export({ format: 'jwk' });
}

function zeroPadded(jwk: webcrypto.JsonWebKey): webcrypto.JsonWebKey {
  const n = Buffer.concat([Buffer.alloc(128), Buffer.from(jwk.n ?? '', 'base64url')]);
  return { ...jwk, n: n.toString('base64url') };
}

function privateJwk({ privateKey }: { privateKey: KeyObject }): webcrypto.JsonWebKey {
  return privateKey.export({ format: 'jwk' });
}

/** The same y with the other sign bit. */
function negated(point: Buffer): Buffer {
  const other = Buffer.from(point);
  other.writeUInt8(other.readUInt8(31) ^ 0x80, 31);
  return other;
}
