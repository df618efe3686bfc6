import { readFileSync } from 'node:fs';
import { verify } from 'node:crypto';
import * as fc from 'fast-check';
import { SignJWT } from 'jose';
import type { VerifiedToken } from '../../src/access/principal.js';
import { bearerError, digestOf, parseBearer } from '../../src/auth/bearer.js';
import { InvalidTokenError } from '../../src/auth/invalid-token.js';
import { selectKeys, isObject } from '../../src/auth/jwk.js';
import {
  KeysUnavailableError,
  TokenVerifier,
  type KeySource,
  type TokenRules,
} from '../../src/auth/token-verifier.js';
import {
  BAD_TOKENS,
  build,
  GOOD_TOKENS,
  goodClaims,
  goodHeader,
  ISSUER,
  JWKS,
  kidOf,
  LEEWAY,
  MAX_LIFETIME,
  NAMES,
  NOW,
  privateKeyOf,
  publicKeyOf,
  SIGNING,
  signWith,
} from '../support/token-cases.js';

const RULES: TokenRules = {
  issuer: ISSUER,
  audiences: [ISSUER, 'second-audience'],
  algorithms: NAMES,
  leewaySeconds: LEEWAY,
  maxLifetimeSeconds: MAX_LIFETIME,
  sessionClaim: 'sid',
};

describe('TokenVerifier', () => {
  describe('valid tokens', () => {
    // Signed by jose, so that the test does not depend on the code of the test tokens.
    it.each(GOOD_TOKENS)(
      'accepts a valid token: $title',
      async ({ from = 'EdDSA', header, claims }) => {
        const token = await new SignJWT({ ...goodClaims(), ...claims })
          .setProtectedHeader({
            ...goodHeader(from),
            ...header,
            alg: header?.alg ?? from,
          })
          .sign(privateKeyOf(from));

        await expect(verifier().verify(token)).resolves.toMatchObject({
          subject: claims?.['sub'] ?? 'user-1',
          sessionId: claims && 'sid' in claims ? (claims['sid'] ?? null) : 'session-1',
          keyId: kidOf(from),
        });
      },
    );

    it.each(NAMES)('accepts the valid %s token that the bad tokens are made from', async (from) => {
      await expect(verifier().verify(build({ from }))).resolves.toEqual({
        subject: 'user-1',
        sessionId: 'session-1',
        issuedAt: NOW - 60,
        expiresAt: NOW + 840,
        notBefore: null,
        keyId: kidOf(from),
      });
    });

    it('accepts a token of a real Better-Auth server with its real key set', async () => {
      const { token, payload } = realToken();
      const { keys } = realKeySet();
      const rules = { ...RULES, issuer: payload.iss, audiences: [payload.iss] };
      const real = new TokenVerifier(keysOf(keys), rules, () => payload.iat * 1000);

      const verified = await real.verify(token);

      expect(verified).toMatchObject({ subject: payload.sub, sessionId: null });
    });

    it('reads the session id from the claim that the rules name', async () => {
      const rules = { ...RULES, sessionClaim: 'session' };
      const token = build({ claims: (good) => ({ ...good, sid: 7, session: 'session-2' }) });

      const verified = await new TokenVerifier(keysOf(JWKS), rules, clock).verify(token);

      expect(verified.sessionId).toBe('session-2');
    });

    it('ignores claims named __proto__ and constructor', async () => {
      const token = build({
        claimsText: (good) => good.replace('{', '{"__proto__":{"isAdmin":1},"constructor":1,'),
      });

      const verified = await verifier().verify(token);

      expect(Object.keys(verified)).not.toContain('__proto__');
      expect(verified).not.toHaveProperty('isAdmin');
      expect({}).not.toHaveProperty('isAdmin');
    });
  });

  describe('invalid tokens', () => {
    it('refuses at least 130 different kinds of bad token', () => {
      const distinct = new Set(BAD_TOKENS.map(({ title }) => title));

      expect(BAD_TOKENS.length).toBeGreaterThanOrEqual(130);
      expect(distinct.size).toBe(BAD_TOKENS.length);
    });

    it.each(BAD_TOKENS)('refuses a bad token: $title [$source]', async (row) => {
      const refused = await refusalOf(verifier().verify(build(row)));

      expect(refused).toMatchObject({ failure: row.failure ?? 'invalid', reason: row.reason });
    });

    it.each(BAD_TOKENS.filter(hasValidSignature))(
      'uses a bad token with a valid signature: $title',
      (row) => {
        const from = row.from ?? 'EdDSA';
        const token = build({ ...row, token: (good) => good, signaturePart: (good) => good });
        const dot = token.lastIndexOf('.');
        const { digest, options } = SIGNING[from];
        const input = Buffer.from(token.slice(0, dot));
        const signature = Buffer.from(token.slice(dot + 1), 'base64url');

        expect(verify(digest, input, { key: publicKeyOf(from), ...options }, signature)).toBe(true);
      },
    );

    it('refuses an algorithm that the rules omit, although a key for it exists', async () => {
      const edOnly = withRules({ algorithms: ['Ed25519'] });

      const refused = await refusalOf(edOnly.verify(build({ from: 'RS256' })));

      expect(refused.reason).toBe('algorithm-not-allowed');
      await expect(edOnly.verify(build({}))).resolves.toBeDefined();
    });

    it('refuses a well-formed token without calling it invalid while there are no keys', async () => {
      const keyless: KeySource = {
        get: () => undefined,
        resolve: () => Promise.reject(new KeysUnavailableError()),
      };
      const waiting = new TokenVerifier(keyless, RULES, clock);

      const refused = await refusalOf(waiting.verify(build({})));
      const malformed = await refusalOf(waiting.verify('a.b.c'));

      expect(refused.failure).toBe('keys-unavailable');
      expect(malformed.failure).toBe('invalid');
    });

    it('refuses to start without an issuer or an audience', () => {
      expect(() => withRules({ issuer: '' })).toThrow('issuer');
      expect(() => withRules({ audiences: [] })).toThrow('audience');
      expect(() => withRules({ audiences: [ISSUER, ''] })).toThrow('audience');
    });

    it('refuses random text with InvalidTokenError only, and does not quote it', async () => {
      const one = verifier();
      const good = build({});
      const mutants = fc
        .tuple(fc.nat(good.length), fc.nat(4), fc.string({ unit: 'binary', maxLength: 4 }))
        .map(([at, cut, text]) => good.slice(0, at) + text + good.slice(at + cut))
        .filter((mutant) => mutant !== good);
      const parts = fc
        .tuple(fc.json(), fc.json(), fc.base64String())
        .map(([header, claims, signature]) =>
          [Buffer.from(header), Buffer.from(claims), Buffer.from(signature)]
            .map((part) => part.toString('base64url'))
            .join('.'),
        );

      await fc.assert(
        fc.asyncProperty(
          fc.oneof(mutants, parts, fc.string({ unit: 'binary', maxLength: 300 })),
          async (text) => {
            const refused = await refusalOf(one.verify(text));
            expect(refused.failure).toBe('invalid');
            expect(text.length > 20 && refused.reason.includes(text)).toBe(false);
          },
        ),
        { numRuns: 1_500 },
      );
    });

    it('accepts signed claims of any shape or refuses them with InvalidTokenError only', async () => {
      const one = verifier();
      const name = fc.constantFrom('iss', 'aud', 'exp', 'iat', 'nbf', 'sub', 'sid', '__proto__');

      await fc.assert(
        fc.asyncProperty(fc.dictionary(name, fc.jsonValue()), async (claims) => {
          const token = build({ claims: (good) => ({ ...good, ...claims }) });
          const outcome: unknown = await one.verify(token).catch((error: unknown) => error);
          const isAccepted = isObject(outcome) && typeof outcome['subject'] === 'string';
          expect(isAccepted || outcome instanceof InvalidTokenError).toBe(true);
        }),
        { numRuns: 500 },
      );
    });
  });

  describe('token cache', () => {
    it('caches a verified token and verifies its signature once', async () => {
      const { keys, verifications } = countingKeys();
      const one = new TokenVerifier(keys, RULES, clock);
      const token = build({});

      const first = await one.verify(token);
      const second = await one.verify(token);

      expect(second).toBe(first);
      expect(one.getCached(digestOf(token))).toBe(first);
      expect(verifications()).toBe(1);
    });

    it('returns a frozen token', async () => {
      const verified = await verifier().verify(build({}));

      expect(Object.isFrozen(verified)).toBe(true);
    });

    it('does not cache a refused token, and has no entry for a new one', async () => {
      const one = verifier();
      const bad = build({ claims: (good) => ({ ...good, aud: 'another' }) });

      await refusalOf(one.verify(bad));

      expect(one.getCached(digestOf(bad))).toBeUndefined();
      expect(one.getCached(digestOf(build({})))).toBeUndefined();
      expect(one.getCached(digestOf('x'.repeat(1 << 20)))).toBeUndefined();
    });

    it('returns a cached token only until its exp', async () => {
      let now = NOW;
      const one = new TokenVerifier(keysOf(JWKS), RULES, () => now * 1000);
      const token = build({});
      await one.verify(token);

      now = NOW + 840 + LEEWAY - 1;
      expect(one.getCached(digestOf(token))).toBeDefined();
      now += 1;
      expect(one.getCached(digestOf(token))).toBeUndefined();
      expect((await refusalOf(one.verify(token))).failure).toBe('expired');
    });

    it('refuses a cached token that is not yet valid after the clock was set back', async () => {
      let now = NOW;
      const one = new TokenVerifier(keysOf(JWKS), RULES, () => now * 1000);
      const early = build({ claims: (good) => ({ ...good, nbf: NOW - 30 }) });
      await one.verify(early);

      now = NOW - 50;

      expect((await refusalOf(one.verify(early))).reason).toBe('nbf-ahead');
    });

    it('drops a cached token when its key leaves the ring', async () => {
      const { keys, remove } = countingKeys();
      const one = new TokenVerifier(keys, RULES, clock);
      const token = build({});
      await one.verify(token);

      remove(kidOf('EdDSA'));

      expect(one.getCached(digestOf(token))).toBeUndefined();
      expect((await refusalOf(one.verify(token))).reason).toBe('unknown-key');
    });

    it('drops a cached token when another key takes over its kid', async () => {
      const { keys, rename } = countingKeys();
      const one = new TokenVerifier(keys, RULES, clock);
      const token = build({ from: 'ES256' });
      await one.verify(token);

      rename(kidOf('EdDSA'), kidOf('ES256'));

      expect(one.getCached(digestOf(token))).toBeUndefined();
    });

    it('caches an expired token and verifies its signature once', async () => {
      const { keys, verifications } = countingKeys();
      const one = new TokenVerifier(keys, RULES, clock);
      const expired = build({ claims: (good) => ({ ...good, iat: NOW - 900, exp: NOW - 60 }) });

      for (let attempt = 0; attempt < 3; attempt += 1) {
        expect((await refusalOf(one.verify(expired))).failure).toBe('expired');
      }

      expect(one.getCached(digestOf(expired))).toBeUndefined();
      expect(one.getVerified(digestOf(expired))?.subject).toBe('user-1');
      expect(verifications()).toBe(1);
    });

    it('does not cache a token that our issuer did not sign', async () => {
      const one = verifier();
      const forged = build({ signaturePart: (good) => `${good.slice(0, -4)}AAAA` });

      await refusalOf(one.verify(forged));

      expect(one.getVerified(digestOf(forged))).toBeUndefined();
    });

    it('caches the configured number of tokens and evicts the least recently used', async () => {
      const one = new TokenVerifier(keysOf(JWKS), RULES, clock, 2);
      const [a, b, c] = [tokenOf('a'), tokenOf('b'), tokenOf('c')];
      await one.verify(a);
      await one.verify(b);
      await one.verify(a);
      await one.verify(c);

      expect(one.getCached(digestOf(a))).toBeDefined();
      expect(one.getCached(digestOf(b))).toBeUndefined();
      expect(one.getCached(digestOf(c))).toBeDefined();
    });

    it('verifies the same claims again when they are signed again', async () => {
      const { keys, verifications } = countingKeys();
      const one = new TokenVerifier(keys, RULES, clock);
      const token = build({ from: 'ES256' });
      const input = token.slice(0, token.lastIndexOf('.'));

      await one.verify(token);
      await one.verify(`${input}.${signWith('ES256', input).toString('base64url')}`);

      expect(verifications()).toBe(2);
    });
  });
});

describe('signature budget', () => {
  it('charges signatures only, and not tokens refused for their form or their key', async () => {
    const one = verifier();
    let runs = 0;
    const budget = {
      run: <Value>(work: () => Value): Value => {
        runs += 1;
        return work();
      },
    };
    const unsigned = [
      'a.b.c',
      build({ header: (good) => ({ ...good, alg: 'none' }) }),
      build({ header: (good) => ({ ...good, kid: 'nobody-has-it' }) }),
    ];
    for (const token of unsigned) await refusalOf(one.verify(token, budget));
    expect(runs).toBe(0);

    await one.verify(build({}), budget);
    await one.verify(build({}), budget);
    // The second time the token is cached.
    expect(runs).toBe(1);
  });

  it('refuses a token without calling it invalid once the budget is used up', async () => {
    const one = verifier();
    const refused = await refusalOf(one.verify(build({}), { run: () => undefined }));
    expect(refused).toMatchObject({ failure: 'busy', reason: 'signature-budget' });
    await expect(one.verify(build({}))).resolves.toBeDefined();
  });
});

describe('bearer token', () => {
  it.each([
    ['Bearer abc', 'abc'],
    ['bearer abc', 'abc'],
    ['BEARER abc', 'abc'],
    ['bEaReR a.b-c_d~e+f/g==', 'a.b-c_d~e+f/g=='],
    ['Bearer  abc', 'abc'],
    ['Bearer      abc', 'abc'],
  ])('reads the token of the header %j (RFC 6750 §2.1, RFC 9110 §11.1)', (header, token) => {
    expect(parseBearer(header)).toBe(token);
  });

  it.each([undefined, '', 'Basic YTpi', 'BearerX abc', 'Bearers abc', 'Token abc', 'abc', 'Bear'])(
    'finds no token in the header %j',
    (header) => {
      expect(parseBearer(header)).toBeUndefined();
      expect(bearerError(header)).toMatchObject({ code: 'AUTH_MISSING_TOKEN' });
    },
  );

  it.each([
    'Bearer',
    'Bearer ',
    'Bearer   ',
    'Bearer abc ',
    'Bearer  abc ',
    'Bearer \tabc',
    'Bearer abc def',
    'Bearer abc,def',
    'Bearer abc, Bearer def',
    'Bearer\tabc',
    'Bearer abc\n',
    'Bearer "abc"',
    'Bearer a=b',
    'Bearer =',
    'Bearer token="abc"',
    'Bearer ä',
    'Bearer\u00a0abc',
  ])('refuses the header %j', (header) => {
    expect(parseBearer(header)).toBeUndefined();
    expect(bearerError(header)).toBeInstanceOf(InvalidTokenError);
  });

  it('reads or refuses any header, and throws no error', () => {
    const anything = fc.string({ unit: 'binary', maxLength: 200 });
    const nearly = fc.tuple(fc.constantFrom('Bearer', 'bearer ', 'BEARER  '), anything);

    fc.assert(
      fc.property(
        fc.oneof(
          anything,
          nearly.map(([scheme, rest]) => scheme + rest),
        ),
        (header) => {
          const token = bearerOutcome(header);
          if (typeof token !== 'string') return;
          // RFC 6750 §2.1: the scheme, 1*SP, and the token to the end of the header.
          const spaces = header.slice(6, header.length - token.length);
          expect(header.slice(0, 6).toLowerCase() + spaces + token).toBe(
            `bearer${' '.repeat(spaces.length)}${header.slice(6 + spaces.length)}`,
          );
          expect(spaces.length).toBeGreaterThan(0);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it.each([
    ['no space', 'Bearer'.padEnd(1 << 20, 'a')],
    ['nothing but spaces', 'Bearer'.padEnd(1 << 20, ' ')],
    ['spaces before a token that goes wrong', `Bearer${' '.repeat(1 << 20)}a"`],
    ['many spaces and many characters', `Bearer${' '.repeat(1 << 19)}${'a'.repeat(1 << 19)} `],
    ['padding that does not end the header', `Bearer ${'='.repeat(1 << 20)}x`],
    ['a token that goes wrong at its end', `Bearer ${'a'.repeat(1 << 20)} `],
  ])('parses a header of a megabyte in linear time: %s', (_, header) => {
    const started = performance.now();
    bearerOutcome(header);

    // Quadratic work would take minutes.
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});

const clock = (): number => NOW * 1000;

function verifier(): TokenVerifier {
  return new TokenVerifier(keysOf(JWKS), RULES, clock);
}

function tokenOf(sub: string): string {
  return build({ claims: (good) => ({ ...good, sub }) });
}

function withRules(change: Partial<TokenRules>): TokenVerifier {
  return new TokenVerifier(keysOf(JWKS), { ...RULES, ...change }, clock);
}

function keysOf(published: readonly unknown[]): KeySource {
  const { keys } = selectKeys(published, NAMES);
  return {
    get: (kid) => keys.get(kid),
    resolve: (kid) => Promise.resolve(keys.get(kid)),
  };
}

function countingKeys() {
  const { keys } = selectKeys(JWKS, NAMES);
  let count = 0;
  for (const key of keys.values()) {
    const verifies = key.verifies.bind(key);
    key.verifies = (...both) => {
      count += 1;
      return verifies(...both);
    };
  }
  const source: KeySource = {
    get: (kid) => keys.get(kid),
    resolve: (kid) => Promise.resolve(keys.get(kid)),
  };
  return {
    keys: source,
    verifications: () => count,
    remove: (kid: string) => keys.delete(kid),
    rename: (from: string, to: string) => {
      const key = keys.get(from);
      if (key) keys.set(to, key);
    },
  };
}

async function refusalOf(verification: Promise<VerifiedToken>): Promise<InvalidTokenError> {
  const outcome: unknown = await verification.catch((error: unknown) => error);
  if (outcome instanceof InvalidTokenError) return outcome;
  throw new Error('This was not refused with InvalidTokenError.', { cause: outcome });
}

function bearerOutcome(header: string): string | Error {
  return parseBearer(header) ?? bearerError(header);
}

function hasValidSignature(row: (typeof BAD_TOKENS)[number]): boolean {
  return row.signature === undefined;
}

function realToken(): { token: string; payload: { iat: number; sub: string; iss: string } } {
  return JSON.parse(readFixture('jwt-default.json'));
}

function realKeySet(): { keys: unknown[] } {
  return JSON.parse(readFixture('jwks-EdDSA.json'));
}

function readFixture(name: string): string {
  return readFileSync(new URL(`../fixtures/better-auth/${name}`, import.meta.url), 'utf8');
}
