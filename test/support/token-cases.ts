import {
  constants,
  createHmac,
  generateKeyPairSync,
  sign,
  type KeyObject,
  type SigningOptions,
} from 'node:crypto';

/**
 * A bad token. Each row changes one thing of a good token, where possible before it is signed. So
 * the signature is valid, and the verifier can refuse the token only for that change. `reason` is
 * the expected reason.
 *
 * [BCP] is RFC 8725 (JWT Best Current Practices; draft-ietf-oauth-rfc8725bis follows it), [OWASP]
 * the JSON Web Token cheat sheet and testing guide.
 */
export interface BadToken {
  title: string;
  source: string;
  reason: string;
  failure?: 'expired';
  /** The algorithm, and with it the key, of the good token. */
  from?: Name;
  header?: (good: Json) => Json;
  claims?: (good: Json) => Json;
  headerText?: (good: string) => string | Buffer;
  claimsText?: (good: string) => string | Buffer;
  headerPart?: (good: string) => string;
  claimsPart?: (good: string) => string;
  /** Only rows about the signature have this, and only they have an invalid signature. */
  signature?: (good: Buffer, signingInput: string) => Buffer;
  signaturePart?: (good: string) => string;
  token?: (good: string) => string;
}

export interface GoodToken {
  title: string;
  from?: Name;
  header?: Json & { alg?: string };
  claims?: Json;
}

export type Json = Record<string, unknown>;

type Name = 'EdDSA' | 'ES256' | 'ES512' | 'RS256' | 'PS256';

export const ISSUER = 'https://id.example.com';
export const NOW = 1_800_000_000;
export const NAMES: readonly Name[] = ['EdDSA', 'ES256', 'ES512', 'RS256', 'PS256'];
export const LEEWAY = 5;
export const MAX_LIFETIME = 86_400;

const PAIRS: Record<Name, { publicKey: KeyObject; privateKey: KeyObject }> = {
  EdDSA: generateKeyPairSync('ed25519'),
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ES512: generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  RS256: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: generateKeyPairSync('rsa', { modulusLength: 2048 }),
};

const ATTACKER = generateKeyPairSync('ed25519');

/** The key set as Better-Auth publishes it: each key with `alg` and `kid`. */
export const JWKS = NAMES.map((alg) => ({
  ...PAIRS[alg].publicKey.export({ format: 'jwk' }),
  alg,
  kid: kidOf(alg),
}));

export function kidOf(name: Name): string {
  return `key-${name}`;
}

export function privateKeyOf(name: Name): KeyObject {
  return PAIRS[name].privateKey;
}

export function publicKeyOf(name: Name): KeyObject {
  return PAIRS[name].publicKey;
}

export function goodHeader(name: Name): Json {
  return { alg: name, kid: kidOf(name) };
}

export function goodClaims(): Json {
  return {
    iat: NOW - 60,
    name: 'Ada Admin',
    role: 'user',
    sid: 'session-1',
    sub: 'user-1',
    exp: NOW + 840,
    iss: ISSUER,
    aud: ISSUER,
  };
}

/** Builds the token of a row. `{}` builds the good token. */
export function build(row: Partial<BadToken>): string {
  const from = row.from ?? 'EdDSA';
  const headerText = JSON.stringify((row.header ?? same)(goodHeader(from)));
  const claimsText = JSON.stringify((row.claims ?? same)(goodClaims()));
  const header = (row.headerPart ?? same)(encode((row.headerText ?? same)(headerText)));
  const claims = (row.claimsPart ?? same)(encode((row.claimsText ?? same)(claimsText)));
  const signingInput = `${header}.${claims}`;
  const signature = (row.signature ?? same)(signWith(from, signingInput), signingInput);
  const signaturePart = (row.signaturePart ?? same)(encode(signature));
  return (row.token ?? same)(`${signingInput}.${signaturePart}`);
}

export function signWith(
  name: Name,
  signingInput: string,
  key = PAIRS[name].privateKey,
  options = SIGNING[name].options,
): Buffer {
  return sign(SIGNING[name].digest, Buffer.from(signingInput), { key, ...options });
}

export const SIGNING: Record<Name, { digest: string | null; options: SigningOptions }> = {
  EdDSA: { digest: null, options: {} },
  ES256: { digest: 'sha256', options: { dsaEncoding: 'ieee-p1363' } },
  ES512: { digest: 'sha512', options: { dsaEncoding: 'ieee-p1363' } },
  RS256: { digest: 'sha256', options: { padding: constants.RSA_PKCS1_PADDING } },
  PS256: {
    digest: 'sha256',
    options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 },
  },
};

function same<T>(value: T): T {
  return value;
}

function encode(value: string | Buffer): string {
  return Buffer.from(value).toString('base64url');
}

/** Sets unused bits of the last character, which a lenient decoder drops. */
function withSurplusBits(part: string): string {
  if (part.length % 4 === 0) throw new Error('This part has no unused bits.');
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return part.slice(0, -1) + alphabet[alphabet.indexOf(part.slice(-1)) + 1];
}

/** Pads JSON text with spaces until its base64url has unused bits. */
function unaligned(text: string): string {
  return text.length % 3 === 0 ? `${text} ` : text;
}

function without(name: string): (good: Json) => Json {
  return (good) => Object.fromEntries(Object.entries(good).filter(([key]) => key !== name));
}

function merged(change: Json): (good: Json) => Json {
  return (good) => ({ ...good, ...change });
}

function bigInteger(bytes: Buffer): bigint {
  return BigInt(`0x${bytes.toString('hex')}`);
}

function littleEndian(value: bigint): Buffer {
  return Buffer.from(Buffer.from(value.toString(16).padStart(64, '0'), 'hex').toReversed());
}

const ED25519_ORDER = 2n ** 252n + 27_742_317_777_372_353_535_851_937_790_883_648_493n;

const algorithmRows: BadToken[] = [
  ...['none', 'None', 'NONE', 'nOnE'].map((alg) => ({
    title: `alg ${alg}, its signature left as it was`,
    source: '[BCP] §3.2, RFC 7518 §3.6, [OWASP]',
    reason: 'algorithm-not-allowed',
    header: merged({ alg }),
  })),
  {
    title: 'alg none with an empty signature',
    source: '[BCP] §2.1, RFC 7519 §6',
    reason: 'not-three-parts',
    header: merged({ alg: 'none' }),
    signaturePart: () => '',
  },
  ...(['pem', 'der', 'jwk', 'x'] as const).map((form) => ({
    title: `alg HS256, keyed with the public key as ${form}`,
    source: '[BCP] §2.1 and §3.1',
    reason: 'algorithm-not-allowed',
    header: merged({ alg: 'HS256' }),
    signature: (_: Buffer, input: string) =>
      createHmac('sha256', publicBytes(form)).update(input).digest(),
  })),
  ...['HS384', 'HS512', 'RS1', 'RS384', 'RS512', 'PS384', 'PS512', 'ES384', 'ES256K', 'Ed448'].map(
    (alg) => ({
      title: `alg ${alg}, which is not on the list`,
      source: '[BCP] §3.2, RFC 7518 §3.1, RFC 9864 §2',
      reason: 'algorithm-not-allowed',
      header: merged({ alg }),
    }),
  ),
  ...['eddsa', 'EDDSA', 'ED25519', 'EdDSA ', ' EdDSA', 'EdDSA\u0000', ''].map((alg) => ({
    title: `alg ${JSON.stringify(alg)}, which only looks like a name`,
    source: 'RFC 7515 §4.1.1 (case-sensitive)',
    reason: 'algorithm-not-allowed',
    header: merged({ alg }),
  })),
  ...['constructor', '__proto__', 'toString', 'hasOwnProperty'].map((alg) => ({
    title: `alg ${alg}, which every object has`,
    source: '[BCP] §3.1',
    reason: 'algorithm-not-allowed',
    header: merged({ alg }),
  })),
  ...[null, 1, true, ['EdDSA'], { name: 'EdDSA' }].map((alg) => ({
    title: `alg ${JSON.stringify(alg)}, which is no string`,
    source: 'RFC 7515 §4.1.1',
    reason: 'algorithm-not-allowed',
    header: merged({ alg }),
  })),
  {
    title: 'no alg',
    source: 'RFC 7515 §4.1.1 (MUST be present)',
    reason: 'algorithm-not-allowed',
    header: without('alg'),
  },
  // Signed with the algorithm and the key of the header.
  ...(
    [
      ['RS256', 'PS256'],
      ['PS256', 'RS256'],
    ] as const
  ).map(([from, alg]) => ({
    title: `an ${from} key used for ${alg}, validly signed as ${alg}`,
    source: '[BCP] §3.1, RFC 8017 §8',
    reason: 'algorithm-not-of-this-key',
    from,
    header: merged({ alg }),
    signature: (_: Buffer, input: string) =>
      signWith(from, input, PAIRS[from].privateKey, SIGNING[alg].options),
  })),
  ...(
    [
      ['EdDSA', 'RS256'],
      ['EdDSA', 'ES256'],
      ['ES256', 'ES512'],
      ['ES512', 'ES256'],
      ['ES256', 'Ed25519'],
      ['RS256', 'EdDSA'],
    ] as const
  ).map(([from, alg]) => ({
    title: `alg ${alg} with the kid of an ${from} key`,
    source: '[BCP] §3.1',
    reason: 'algorithm-not-of-this-key',
    from,
    header: merged({ alg }),
  })),
];

function publicBytes(form: 'pem' | 'der' | 'jwk' | 'x'): string | Buffer {
  const { publicKey } = PAIRS.EdDSA;
  if (form === 'pem') return publicKey.export({ type: 'spki', format: 'pem' });
  if (form === 'der') return publicKey.export({ type: 'spki', format: 'der' });
  const jwk = publicKey.export({ format: 'jwk' });
  return form === 'jwk' ? JSON.stringify(jwk) : Buffer.from(jwk.x ?? '', 'base64url');
}

const attackerJwk = ATTACKER.publicKey.export({ format: 'jwk' });

const headerRows: BadToken[] = [
  {
    title: "jwk: the sender's own key, which did sign",
    source: 'RFC 7515 §4.1.3, [BCP] §3.10, CVE-2018-0114',
    reason: 'header-member',
    header: merged({ jwk: attackerJwk }),
    signature: (_, input) => signWith('EdDSA', input, ATTACKER.privateKey),
  },
  ...(
    [
      ['jwk', PAIRS.EdDSA.publicKey.export({ format: 'jwk' }), 'RFC 7515 §4.1.3'],
      ['jku', 'https://attacker.example/jwks', 'RFC 7515 §4.1.2, [BCP] §3.10'],
      ['jku', `${ISSUER}/api/auth/jwks`, 'RFC 7515 §4.1.2, [BCP] §3.10'],
      ['x5u', 'https://attacker.example/cert.pem', 'RFC 7515 §4.1.5, [BCP] §3.10'],
      ['x5c', ['MIIB'], 'RFC 7515 §4.1.6'],
      ['x5t', 'abc', 'RFC 7515 §4.1.7'],
      ['x5t#S256', 'abc', 'RFC 7515 §4.1.8'],
      ['crit', ['exp'], 'RFC 7515 §4.1.11'],
      ['crit', [], 'RFC 7515 §4.1.11 (not empty)'],
      ['crit', ['b64'], 'RFC 7797 §6'],
      ['crit', null, 'RFC 7515 §4.1.11'],
      ['b64', false, 'RFC 7797 §3'],
      ['b64', true, 'RFC 7797 §7'],
      ['zip', 'DEF', 'RFC 7516 §4.1.3, [BCP] §3.6'],
      ['cty', 'JWT', 'RFC 7519 §5.2 (nested)'],
      ['enc', 'A256GCM', 'RFC 7516 §4.1.2, RFC 7519 §5'],
    ] as const
  ).map(([name, value, source]) => ({
    title: `${name} ${JSON.stringify(value).slice(0, 40)}, validly signed`,
    source,
    reason: 'header-member',
    header: merged({ [name]: value }),
  })),
  {
    title: 'an unencoded payload (b64 false), validly signed over it',
    source: 'RFC 7797 §3',
    reason: 'not-three-parts',
    header: merged({ b64: false, crit: ['b64'] }),
    claimsPart: (part) => Buffer.from(part, 'base64url').toString(),
  },
  ...[
    'better-auth.session-cache+jwt',
    'at+jwt',
    'logout+jwt',
    'secevent+jwt',
    'dpop+jwt',
    'JOSE',
    'jwt',
    'JWT ',
    'application/jwt',
    '',
    null,
    ['JWT'],
  ].map((typ) => ({
    title: `typ ${JSON.stringify(typ)}`,
    source: '[BCP] §3.11 and §3.12, RFC 7519 §5.1',
    reason: 'typ',
    header: merged({ typ }),
  })),
];

const kidRows: BadToken[] = [
  {
    title: 'no kid',
    source: 'RFC 7515 §4.1.4',
    reason: 'kid',
    header: without('kid'),
  },
  ...[null, 0, true, ['key-EdDSA'], { kid: 'key-EdDSA' }, ''].map((kid) => ({
    title: `kid ${JSON.stringify(kid)}`,
    source: 'RFC 7515 §4.1.4 (a string)',
    reason: 'kid',
    header: merged({ kid }),
  })),
  {
    title: 'a kid of 129 characters',
    source: '[BCP] §3.10',
    reason: 'kid',
    header: merged({ kid: 'k'.repeat(129) }),
  },
  ...['key-EdDSA\u0000', 'key-EdDSA\n', 'key-EdDSA\u007f', '\ud800'].map((kid) => ({
    title: `kid ${JSON.stringify(kid)}`,
    source: '[BCP] §3.10, RFC 8725 §2.9',
    reason: 'kid',
    header: merged({ kid }),
  })),
  ...[
    '../../../../dev/null',
    "key-EdDSA' OR '1'='1",
    'key-EdDSA|/bin/true',
    '__proto__',
    'constructor',
    'KEY-EDDSA',
    'key-EdDSA ',
    'nobody',
    'ｋey-EdDSA',
  ].map((kid) => ({
    title: `kid ${JSON.stringify(kid)}, which is unknown`,
    source: '[BCP] §3.10 (kid injection), [OWASP]',
    reason: 'unknown-key',
    header: merged({ kid }),
  })),
  {
    title: 'the kid of another key of the issuer, of the same algorithm',
    source: '[BCP] §3.1',
    reason: 'signature',
    signature: (_, input) => signWith('EdDSA', input, ATTACKER.privateKey),
  },
];

const HEADER_DUPLICATES = [
  ['alg twice, the same', '"alg":"EdDSA",'],
  ['alg twice, none first', '"alg":"none",'],
  ['alg twice, spelled with an escape', '"\\u0061lg":"EdDSA",'],
  ['kid twice', '"kid":"key-ES256",'],
] as const;

const CLAIM_DUPLICATES = [
  ['sub twice', '"sub":"admin",'],
  ['sub twice, the same', '"sub":"user-1",'],
  ['exp twice', '"exp":9007199254740991,'],
  ['sub twice, spelled with an escape', '"s\\u0075b":"admin",'],
  ['sub twice, with space before the colon', '"sub"\n :"admin",'],
  ['an unused claim twice', '"x":{"y":[{"x":1}]},"x":"}",'],
  ['__proto__ twice', '"__proto__":1,"__proto__":2,'],
] as const;

const jsonRows: BadToken[] = [
  ...HEADER_DUPLICATES.map(([title, member]) => ({
    title: `header: ${title}`,
    source: 'RFC 7515 §4 (names MUST be unique), RFC 8259 §4',
    reason: 'duplicate-member',
    headerText: (good: string) => good.replace('{', `{${member}`),
  })),
  ...CLAIM_DUPLICATES.map(([title, member]) => ({
    title: `claims: ${title}`,
    source: 'RFC 7519 §4 (names MUST be unique), RFC 8259 §4',
    reason: 'duplicate-member',
    claimsText: (good: string) => good.replace('{', `{${member}`),
  })),
  ...(['headerText', 'claimsText'] as const).flatMap((part) =>
    (
      [
        ['a byte order mark', (good: string) => `\ufeff${good}`, '[BCP] §3.7, RFC 8259 §8.1'],
        ['UTF-16', (good: string) => Buffer.from(good, 'utf16le'), '[BCP] §3.7, RFC 8259 §8.1'],
        ['a byte that is not UTF-8', spoiled([0xff]), '[BCP] §3.7'],
        ['an overlong UTF-8 slash', spoiled([0xc0, 0xaf]), '[BCP] §3.7, RFC 3629 §3'],
        ['a surrogate in UTF-8', spoiled([0xed, 0xa0, 0x80]), '[BCP] §3.7, RFC 3629 §3'],
        ['a character cut short', spoiled([0xe2, 0x82]), '[BCP] §3.7'],
        ['a list', (good: string) => `[${good}]`, 'RFC 7515 §4, RFC 7519 §4'],
        ['a string', (good: string) => JSON.stringify(good), 'RFC 7515 §4, RFC 7519 §4'],
        ['null', () => 'null', 'RFC 7515 §4, RFC 7519 §4'],
        ['a number', () => '1', 'RFC 7515 §4, RFC 7519 §4'],
        ['text after the object', (good: string) => `${good}x`, 'RFC 8259 §2'],
        ['a second object', (good: string) => good + good, 'RFC 8259 §2'],
        ['a NUL after the object', (good: string) => `${good}\0`, 'RFC 8259 §2'],
        ['a trailing comma', (good: string) => good.replace(/}$/, ',}'), 'RFC 8259 §4'],
        ['a comment', (good: string) => `/**/${good}`, 'RFC 8259 §2'],
        ['single quotes', (good: string) => good.replaceAll('"', "'"), 'RFC 8259 §7'],
        ['an object cut short', (good: string) => good.slice(0, -1), 'RFC 8259 §4'],
      ] as const
    ).map(([title, change, source]) => ({
      title: `${part === 'headerText' ? 'header' : 'claims'}: ${title}`,
      source,
      reason: 'json',
      [part]: change,
    })),
  ),
];

/** Adds a member with these bytes as its value. */
function spoiled(bytes: number[]): (good: string) => Buffer {
  return (good) =>
    Buffer.concat([Buffer.from('{"x":"'), Buffer.from(bytes), Buffer.from(`",${good.slice(1)}`)]);
}

const encodingRows: BadToken[] = (['headerPart', 'claimsPart', 'signaturePart'] as const).flatMap(
  (part) => {
    const of = part.replace('Part', '');
    const padded = part === 'headerPart' ? 'headerText' : 'claimsText';
    const source = 'RFC 7515 §2, RFC 4648 §3';
    return [
      { title: `${of}: padding`, change: (good: string) => `${good}=` },
      { title: `${of}: a space before`, change: (good: string) => ` ${good}` },
      { title: `${of}: a space after`, change: (good: string) => `${good} ` },
      { title: `${of}: a newline after`, change: (good: string) => `${good}\n` },
      {
        title: `${of}: a tab inside`,
        change: (good: string) => `${good.slice(0, 4)}\t${good.slice(4)}`,
      },
      { title: `${of}: a NUL after`, change: (good: string) => `${good}\0` },
      { title: `${of}: a percent escape`, change: (good: string) => `%${good.slice(1)}` },
      { title: `${of}: a full-width letter`, change: (good: string) => `${good}\uff21` },
      { title: `${of}: surplus bits in the last character`, change: withSurplusBits },
      { title: `${of}: one character too many`, change: overlong },
      { title: `${of}: the alphabet of plain base64`, change: plainAlphabet },
    ].map(({ title, change }) => ({
      title,
      source,
      reason: 'base64url',
      // Gives header and claims unused bits, and a `_` or `-` for the other alphabet.
      ...(part === 'signaturePart'
        ? {}
        : { [padded]: (good: string) => unaligned(good.replace('{', '{"x":"~~~???~~~???",')) }),
      [part]: change,
    }));
  },
);

/** The last group of base64 has two, three or four characters, never one. */
function overlong(part: string): string {
  return part + 'A'.repeat((5 - (part.length % 4)) % 4 || 4);
}

function plainAlphabet(part: string): string {
  const plain = part.replaceAll('-', '+').replaceAll('_', '/');
  return plain === part ? `+${part.slice(1)}` : plain;
}

const structureRows: BadToken[] = [
  { title: 'nothing', token: () => '', reason: 'not-three-parts' },
  { title: 'one dot', token: () => '.', reason: 'not-three-parts' },
  { title: 'two dots', token: () => '..', reason: 'not-three-parts' },
  { title: 'eight thousand dots', token: () => '.'.repeat(8000), reason: 'not-three-parts' },
  {
    title: 'two parts',
    token: (good: string) => good.slice(0, good.lastIndexOf('.')),
    reason: 'not-three-parts',
  },
  { title: 'four parts', token: (good: string) => `${good}.AAAA`, reason: 'not-three-parts' },
  { title: 'a dot at the end', token: (good: string) => `${good}.`, reason: 'not-three-parts' },
  { title: 'a dot at the start', token: (good: string) => `.${good}`, reason: 'not-three-parts' },
  { title: 'an empty header', headerPart: () => '', reason: 'not-three-parts' },
  {
    title: 'a detached payload',
    claimsPart: () => '',
    reason: 'not-three-parts',
    source: 'RFC 7515 appendix F',
  },
  {
    title: 'no signature',
    signaturePart: () => '',
    reason: 'not-three-parts',
    source: 'RFC 7515 §5.2, [OWASP]',
  },
  {
    title: 'a JWE of five parts',
    token: (good: string) => `${good}.AAAA.AAAA`,
    reason: 'not-three-parts',
    source: 'RFC 7516 §3.1, RFC 7519 §7.2',
  },
  {
    title: 'the flattened JSON serialization',
    token: (good: string) => {
      const [header, payload, signature] = good.split('.');
      return JSON.stringify({ protected: header, payload, signature });
    },
    reason: 'not-three-parts',
    source: 'RFC 7515 §7.2.2, RFC 7519 §1',
  },
  {
    title: 'the general JSON serialization',
    token: (good: string) => {
      const [header, payload, signature] = good.split('.');
      return JSON.stringify({ payload, signatures: [{ protected: header, signature }] });
    },
    reason: 'not-three-parts',
    source: 'RFC 7515 §7.2.1, RFC 7519 §1',
  },
  {
    title: 'a token inside a token',
    claimsPart: () => encode(build({})),
    reason: 'json',
    source: 'RFC 7519 §7.1 (nested)',
  },
  { title: 'a quoted token', token: (good: string) => `"${good}"`, reason: 'base64url' },
  { title: 'the scheme with it', token: (good: string) => `Bearer ${good}`, reason: 'base64url' },
  {
    title: 'two tokens',
    token: (good: string) => `${good},${good}`,
    reason: 'not-three-parts',
  },
  {
    title: 'one character more than 8 KiB, all of it right',
    claims: (good: Json) => ({ ...good, x: 'x'.repeat(8 * 1024) }),
    reason: 'too-long',
  },
  { title: 'a megabyte', claims: merged({ x: 'x'.repeat(1 << 20) }), reason: 'too-long' },
  {
    title: 'claims nested three thousand deep, and never closed',
    claimsText: () => `{"x":${'['.repeat(3000)}`,
    reason: 'json',
    source: 'RFC 8259 §9',
  },
].map((row) => ({ source: 'RFC 7515 §7.1, RFC 7519 §7.2', ...row }));

const signatureRows: BadToken[] = [
  ...NAMES.flatMap((from) => [
    {
      title: `${from}: the last byte changed`,
      source: 'RFC 7515 §5.2',
      from,
      signature: (good: Buffer) => Buffer.from([...good.subarray(0, -1), (good.at(-1) ?? 0) ^ 1]),
    },
    {
      title: `${from}: cut by a byte`,
      source: 'RFC 7518 §3.3 to §3.5, RFC 8032 §5.1.7',
      from,
      signature: (good: Buffer) => good.subarray(0, -1),
    },
    {
      title: `${from}: a byte added`,
      source: 'RFC 7518 §3.3 to §3.5, RFC 8032 §5.1.7',
      from,
      signature: (good: Buffer) => Buffer.concat([good, Buffer.alloc(1)]),
    },
    {
      title: `${from}: all zeros`,
      source: 'RFC 7518 §3.4 ("psychic signatures", CVE-2022-21449)',
      from,
      signature: (good: Buffer) => Buffer.alloc(good.length),
    },
    {
      title: `${from}: a single byte`,
      source: 'RFC 7515 §5.2',
      from,
      signature: () => Buffer.from([1]),
    },
    {
      title: `${from}: of another token`,
      source: 'RFC 7515 §5.2',
      from,
      signature: () => signWith(from, build({ from }).split('.', 2).join('.').concat('A')),
    },
  ]),
  ...(['ES256', 'ES512'] as const).flatMap((from) => [
    {
      title: `${from}: in DER`,
      source: 'RFC 7518 §3.4 (R || S)',
      from,
      signature: (_: Buffer, input: string) =>
        signWith(from, input, PAIRS[from].privateKey, { dsaEncoding: 'der' }),
    },
    {
      title: `${from}: R zero`,
      source: 'RFC 7518 §3.4, FIPS 186-5 §6.4.2',
      from,
      signature: (good: Buffer) => Buffer.from(good).fill(0, 0, good.length / 2),
    },
    {
      title: `${from}: S zero`,
      source: 'RFC 7518 §3.4, FIPS 186-5 §6.4.2',
      from,
      signature: (good: Buffer) => Buffer.from(good).fill(0, good.length / 2),
    },
    {
      title: `${from}: R and S in the wrong order`,
      source: 'RFC 7518 §3.4',
      from,
      signature: (good: Buffer) =>
        Buffer.concat([good.subarray(good.length / 2), good.subarray(0, good.length / 2)]),
    },
    {
      title: `${from}: each half with a zero in front`,
      source: 'RFC 7518 §3.4 (exactly as long as the order)',
      from,
      signature: (good: Buffer) =>
        Buffer.concat([
          Buffer.alloc(1),
          good.subarray(0, good.length / 2),
          Buffer.alloc(1),
          good.subarray(good.length / 2),
        ]),
    },
  ]),
  {
    title: 'EdDSA: S plus the order of the group',
    source: 'RFC 8032 §5.1.7 and §8.4 (malleability)',
    signature: (good: Buffer) =>
      Buffer.concat([
        good.subarray(0, 32),
        littleEndian(bigInteger(Buffer.from(good.subarray(32).toReversed())) + ED25519_ORDER),
      ]),
  },
  {
    title: 'EdDSA: signed by another key',
    source: 'RFC 7515 §5.2',
    signature: (_: Buffer, input: string) => signWith('EdDSA', input, ATTACKER.privateKey),
  },
  {
    title: 'EdDSA: over the SHA-512 of the input (Ed25519ph without its prefix)',
    source: 'RFC 8037 §3.1',
    signature: (_: Buffer, input: string) =>
      sign(null, createHmac('sha512', '').update(input).digest(), PAIRS.EdDSA.privateKey),
  },
  {
    title: 'EdDSA: over the claims alone',
    source: 'RFC 7515 §5.1',
    signature: (_: Buffer, input: string) => signWith('EdDSA', input.split('.')[1] ?? ''),
  },
  {
    title: 'PS256: a salt of 20 bytes',
    source: 'RFC 7518 §3.5',
    from: 'PS256' as const,
    signature: (_: Buffer, input: string) =>
      signWith('PS256', input, PAIRS.PS256.privateKey, {
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: 20,
      }),
  },
  {
    title: 'PS256: no salt',
    source: 'RFC 7518 §3.5',
    from: 'PS256' as const,
    signature: (_: Buffer, input: string) =>
      signWith('PS256', input, PAIRS.PS256.privateKey, {
        padding: constants.RSA_PKCS1_PSS_PADDING,
        saltLength: 0,
      }),
  },
  {
    title: 'RS256: made with PSS padding',
    source: 'RFC 7518 §3.3',
    from: 'RS256' as const,
    signature: (_: Buffer, input: string) =>
      signWith('RS256', input, PAIRS.RS256.privateKey, SIGNING.PS256.options),
  },
  {
    title: 'PS256: made with PKCS #1 padding',
    source: 'RFC 7518 §3.5',
    from: 'PS256' as const,
    signature: (_: Buffer, input: string) =>
      signWith('PS256', input, PAIRS.PS256.privateKey, SIGNING.RS256.options),
  },
  {
    title: 'RS256: made with SHA-1',
    source: 'RFC 7518 §3.3',
    from: 'RS256' as const,
    signature: (_: Buffer, input: string) =>
      sign('sha1', Buffer.from(input), PAIRS.RS256.privateKey),
  },
].map((row) => ({ reason: 'signature', ...row }));

/** Claims changed after signing. */
const tamperingRows: BadToken[] = [
  {
    title: 'another subject under the same signature',
    source: 'RFC 7515 §5.2, [OWASP]',
    reason: 'signature',
    signature: () => signWith('EdDSA', build({}).split('.', 2).join('.')),
    claims: merged({ sub: 'admin' }),
  },
  {
    title: 'a later end under the same signature',
    source: 'RFC 7515 §5.2, [OWASP]',
    reason: 'signature',
    signature: () => signWith('EdDSA', build({}).split('.', 2).join('.')),
    claims: merged({ exp: NOW + 80_000 }),
  },
  {
    title: 'expired, with an invalid signature',
    source: 'RFC 7519 §7.2',
    reason: 'signature',
    signature: (good: Buffer) => Buffer.alloc(good.length, 1),
    claims: merged({ exp: NOW - 60 }),
  },
  {
    title: 'a typ added under the same signature',
    source: 'RFC 7515 §5.2',
    reason: 'signature',
    signature: () => signWith('EdDSA', build({}).split('.', 2).join('.')),
    header: merged({ typ: 'JWT' }),
  },
];

const issuerRows: BadToken[] = [
  {
    title: 'no iss',
    source: 'RFC 7519 §4.1.1, [BCP] §3.8',
    reason: 'iss',
    claims: without('iss'),
  },
  ...[
    null,
    0,
    '',
    [ISSUER],
    { iss: ISSUER },
    `${ISSUER}/`,
    `${ISSUER}/api/auth`,
    `${ISSUER}.attacker.example`,
    `${ISSUER}\u0000`,
    ` ${ISSUER}`,
    ISSUER.toUpperCase(),
    ISSUER.replace('https', 'http'),
    'https://other.example.com',
  ].map((iss) => ({
    title: `iss ${JSON.stringify(iss)}`,
    source: 'RFC 7519 §4.1.1 (case-sensitive), [BCP] §3.8',
    reason: 'iss',
    claims: merged({ iss }),
  })),
];

const audienceRows: BadToken[] = [
  {
    title: 'no aud',
    source: 'RFC 7519 §4.1.3, [BCP] §3.9',
    reason: 'aud',
    claims: without('aud'),
  },
  ...[
    null,
    1,
    '',
    [],
    {},
    [''],
    [null],
    [[ISSUER]],
    [ISSUER, 1],
    [ISSUER, null],
    { 0: ISSUER, length: 1 },
    `${ISSUER}/`,
    `${ISSUER},https://other.example.com`,
    ISSUER.toUpperCase(),
    ISSUER.slice(0, -1),
    'https://other.example.com',
    ['https://other.example.com', 'https://third.example.com'],
    'better-auth:session-cache',
    '*',
  ].map((aud) => ({
    title: `aud ${JSON.stringify(aud)}`,
    source: 'RFC 7519 §4.1.3, [BCP] §3.9',
    reason: 'aud',
    claims: merged({ aud }),
  })),
];

const NOT_SECONDS = [
  'null',
  'true',
  '"1800000000"',
  '""',
  '[1800000000]',
  '{}',
  '1800000000.5',
  '1e400',
  '-1e400',
  '9007199254740992',
  '1e300',
  '"2027-01-15T08:00:00Z"',
];

const timeRows: BadToken[] = [
  ...['exp', 'iat'].map((name) => ({
    title: `no ${name}`,
    source: name === 'exp' ? 'RFC 7519 §4.1.4, [OWASP]' : 'RFC 7519 §4.1.6',
    reason: name,
    claims: without(name),
  })),
  ...['exp', 'iat', 'nbf'].flatMap((name) =>
    NOT_SECONDS.map((value) => ({
      title: `${name} ${value}`,
      source: 'RFC 7519 §2 (NumericDate) and §4.1.4 to §4.1.6',
      reason: name,
      claims: without(name),
      claimsText: (good: string) => good.replace('{', `{"${name}":${value},`),
    })),
  ),
  ...[
    { title: 'exp a moment ago, the leeway gone', exp: NOW - LEEWAY },
    { title: 'exp an hour ago', exp: NOW - 3600, iat: NOW - 7200 },
    { title: 'exp 0', exp: 0, iat: 0 },
    { title: 'exp negative', exp: -1, iat: -2 },
    { title: 'exp before iat', exp: NOW - 60, iat: NOW },
  ].map(({ title, ...change }) => ({
    title,
    source: 'RFC 7519 §4.1.4 ("on or after")',
    reason: 'expired',
    failure: 'expired' as const,
    claims: merged(change),
  })),
  {
    title: 'iat ahead by more than the leeway',
    source: 'RFC 7519 §4.1.6',
    reason: 'iat-ahead',
    claims: merged({ iat: NOW + LEEWAY + 1 }),
  },
  {
    title: 'iat and exp in milliseconds',
    source: 'RFC 7519 §2 (seconds)',
    reason: 'iat-ahead',
    claims: merged({ iat: NOW * 1000, exp: NOW * 1000 + 900 }),
  },
  {
    title: 'exp in milliseconds',
    source: 'RFC 7519 §2 (seconds)',
    reason: 'lifetime',
    claims: merged({ exp: NOW * 1000 }),
  },
  {
    title: 'nbf ahead by more than the leeway',
    source: 'RFC 7519 §4.1.5',
    reason: 'nbf-ahead',
    claims: merged({ nbf: NOW + LEEWAY + 1 }),
  },
  {
    title: 'a life one second longer than the longest',
    source: '[BCP] §3.10, [OWASP]',
    reason: 'lifetime',
    claims: merged({ iat: NOW, exp: NOW + MAX_LIFETIME + 1 }),
  },
  {
    title: 'the longest life that can be written',
    source: '[BCP] §3.10, [OWASP]',
    reason: 'lifetime',
    claims: merged({ exp: Number.MAX_SAFE_INTEGER }),
  },
  {
    title: 'iat pushed back to the smallest number',
    source: 'RFC 7519 §4.1.6',
    reason: 'lifetime',
    claims: merged({ iat: Number.MIN_SAFE_INTEGER }),
  },
  // Expired tokens with another error, which must be the reported one.
  ...[
    { reason: 'iss', change: { iss: 'https://other.example.com' } },
    { reason: 'aud', change: { aud: 'https://other.example.com' } },
    { reason: 'sub', change: { sub: '' } },
    { reason: 'session-claim', change: { sid: null } },
    { reason: 'nbf', change: { nbf: 'soon' } },
    { reason: 'nbf-ahead', change: { nbf: NOW + 60 } },
  ].map(({ reason, change }) => ({
    title: `expired, and its ${reason} wrong too`,
    source: 'RFC 7519 §7.2',
    reason,
    claims: merged({ exp: NOW - 30, ...change }),
  })),
];

const NOT_PLAIN_TEXT: unknown[] = [
  null,
  1,
  true,
  '',
  ['user-1'],
  { id: 'user-1' },
  'u'.repeat(256),
  'user-1\u0000',
  'user-1\n',
  '\u001b[2J',
  'user-1\u007f',
  'user-1\u0085',
  'user-1\ud800',
  '\udc00user-1',
];

const subjectRows: BadToken[] = [
  { title: 'no sub', source: 'RFC 7519 §4.1.2, [BCP] §3.8', reason: 'sub', claims: without('sub') },
  ...(
    [
      ['sub', 'sub', 'RFC 7519 §4.1.2, [BCP] §3.8'],
      ['sid', 'session-claim', 'OpenID Connect Front-Channel Logout 1.0 §3'],
    ] as const
  ).flatMap(([name, reason, source]) =>
    NOT_PLAIN_TEXT.map((value) => ({
      title: `${name} ${JSON.stringify(value).slice(0, 40)}`,
      source,
      reason,
      claims: merged({ [name]: value }),
    })),
  ),
  {
    title: 'a sub that only __proto__ has',
    source: '[BCP] §3.10',
    reason: 'sub',
    claims: without('sub'),
    claimsText: (good) => good.replace('{', '{"__proto__":{"sub":"admin"},'),
  },
  {
    title: 'claims that only __proto__ has',
    source: '[BCP] §3.10',
    reason: 'iss',
    claimsText: (good) => `{"__proto__":${good}}`,
  },
];

export const BAD_TOKENS: readonly BadToken[] = [
  ...algorithmRows,
  ...headerRows,
  ...kidRows,
  ...jsonRows,
  ...encodingRows,
  ...structureRows,
  ...signatureRows,
  ...tamperingRows,
  ...issuerRows,
  ...audienceRows,
  ...timeRows,
  ...subjectRows,
];

export const GOOD_TOKENS: readonly GoodToken[] = [
  ...NAMES.map((from) => ({ title: `${from}, as Better-Auth signs it`, from })),
  { title: 'Ed25519, the new name of EdDSA', header: { alg: 'Ed25519' } },
  { title: 'typ JWT', header: { typ: 'JWT' } },
  { title: 'a header member that has no meaning here', header: { 'x-trace': 'abc' } },
  { title: 'aud a list with ours in it', claims: { aud: ['https://other.example.com', ISSUER] } },
  { title: 'aud a list of ours alone', claims: { aud: [ISSUER] } },
  { title: 'aud the second of ours', claims: { aud: 'second-audience' } },
  { title: 'exp gone by less than the leeway', claims: { exp: NOW - LEEWAY + 1 } },
  { title: 'iat ahead by the leeway', claims: { iat: NOW + LEEWAY } },
  { title: 'nbf ahead by the leeway', claims: { nbf: NOW + LEEWAY } },
  { title: 'nbf long ago', claims: { nbf: 0 } },
  { title: 'the longest life', claims: { iat: NOW, exp: NOW + MAX_LIFETIME } },
  { title: 'no sid', claims: { sid: undefined } },
  { title: 'a sub of 255 characters', claims: { sub: 's'.repeat(255) } },
  { title: 'a sub of one character', claims: { sub: '1' } },
  { title: 'a sub outside ASCII', claims: { sub: 'ада-😀' } },
  { title: 'a sid of 255 characters', claims: { sid: 's'.repeat(255) } },
  { title: 'one name in two objects', claims: { sub: 'user-1', x: { sub: 1, y: [{ sub: 2 }] } } },
  { title: 'a string that looks like members', claims: { x: '"sub":"a","sub":{' } },
  { title: 'a string that ends in a backslash', claims: { x: 'a\\', y: '\\"' } },
  { title: 'a claim nested deep', claims: { x: deep(100) } },
  { title: 'a text outside ASCII', claims: { name: 'Zoë Ångström 😀' } },
  { title: 'many claims, just under 8 KiB', claims: { x: 'x'.repeat(5800) } },
];

function deep(levels: number): unknown {
  return levels === 0 ? {} : { x: [deep(levels - 1)] };
}
