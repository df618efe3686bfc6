import { MikroORM } from '@mikro-orm/postgresql';
import { ormOptions } from '../../mikro-orm.config.js';
import { AccessPolicy } from '../access/access-policy.js';
import type { VerifiedToken } from '../access/principal.js';
import { latestSessionStart } from '../access/session-rules.js';
import { AuthRepository } from '../auth/auth.repository.js';
import { InvalidTokenError } from '../auth/invalid-token.js';
import type { VerificationKey } from '../auth/jwk.js';
import { readToken } from '../auth/token-form.js';
import { TokenVerifier } from '../auth/token-verifier.js';
import { type Verdict, verdict } from '../auth/verdict.js';
import type { Environment } from '../config/environment.js';
import type { PhysicalSchema } from '../database/physical-schema.js';

/**
 * Explains why Gatehouse refuses a token. Returns undefined if it accepts the token. The text never
 * contains the token. It quotes a claim only after the signature is verified.
 */
export async function explainToken(
  text: string,
  keys: ReadonlyMap<string, VerificationKey>,
  environment: Environment,
  physical: PhysicalSchema,
): Promise<string | undefined> {
  const source = {
    get: (kid: string) => keys.get(kid),
    resolve: async (kid: string) => keys.get(kid),
  };
  const { issuer, audiences, JWT_ALGORITHMS, JWT_SESSION_CLAIM } = environment;
  const verifier = new TokenVerifier(source, {
    issuer,
    audiences,
    algorithms: JWT_ALGORITHMS,
    leewaySeconds: environment.JWT_LEEWAY_SECONDS,
    maxLifetimeSeconds: environment.JWT_MAX_LIFETIME_SECONDS,
    sessionClaim: JWT_SESSION_CLAIM,
  });
  try {
    const token = await verifier.verify(text);
    return VERDICTS[await verdictOf(token, environment, physical)];
  } catch (error) {
    if (!(error instanceof InvalidTokenError)) throw error;
    return reasonOf(error.reason, text, environment);
  }
}

/** Queries the database like a request whose user is not cached. */
async function verdictOf(
  token: VerifiedToken,
  environment: Environment,
  physical: PhysicalSchema,
): Promise<Verdict> {
  const { sessionId } = token;
  const lookup = sessionId === null ? { maxCreatedAt: latestSessionStart(token) } : { sessionId };
  const isSessionChecked = environment.SESSION_BINDING !== 'token-only';
  const orm = await MikroORM.init(
    ormOptions({ url: environment.DATABASE_URL, poolMax: 1, physical }),
  );
  try {
    const users = new AuthRepository(orm.em, physical);
    const found = await users.find(token.subject, isSessionChecked ? lookup : null);
    return verdict(token, found, environment, new AccessPolicy(environment), new Date());
  } finally {
    await orm.close(true);
  }
}

const VERDICTS: Record<Verdict, string | undefined> = {
  allowed: undefined,
  'no-session-claim':
    'it names no session, and SESSION_BINDING=require-sid requires one. Add the session claim in Better-Auth (definePayload), or use prefer-sid.',
  'no-such-user':
    'its user is not in this database. Does DATABASE_URL name the database of Better-Auth?',
  banned: 'its user is banned.',
  'no-session':
    'its session has ended, or is not in this database. If Better-Auth has secondaryStorage, see docs/better-auth.md.',
};

function reasonOf(reason: string, text: string, environment: Environment): string {
  const { issuer, audiences, JWT_ALGORITHMS, JWT_LEEWAY_SECONDS } = environment;
  const clocks = `The clocks differ by more than JWT_LEEWAY_SECONDS (${JWT_LEEWAY_SECONDS}).`;
  if (reason === 'iss') {
    return `it was issued by ${claimOf(text, 'iss')}, but "${issuer}" is required. Set JWT_ISSUER, or correct BETTER_AUTH_URL.`;
  }
  if (reason === 'aud') {
    const accepted = audiences.map((name) => `"${name}"`).join(' or ');
    return `it is for ${claimOf(text, 'aud')}, but ${accepted} is required. Set JWT_AUDIENCE.`;
  }
  const sentences: Record<string, string> = {
    expired: `it has expired. Get a new one from Better-Auth. If it is new: ${clocks}`,
    'iat-ahead': `it was issued in the future. ${clocks}`,
    'nbf-ahead': `it is not valid yet. ${clocks}`,
    lifetime: 'its lifetime is longer than JWT_MAX_LIFETIME_SECONDS allows.',
    signature:
      'its signature is wrong: the token was changed, or another server signed it with the same key id.',
    'unknown-key':
      'the key set has no key with its key id. Another Better-Auth issued it, or its key was removed.',
    'algorithm-not-allowed': `its algorithm is not one of JWT_ALGORITHMS (${JWT_ALGORITHMS.join(', ')}).`,
    'algorithm-not-of-this-key': 'its algorithm differs from the algorithm of its key.',
    'not-three-parts':
      'it is not a JWT, which has three parts separated by dots. Is it a session token of Better-Auth?',
    'too-long': 'it has more than 8 KB. Are pictures stored in the user table?',
    sub: 'it names no user in `sub`.',
    'session-claim': 'its session claim (JWT_SESSION_CLAIM) is not a text.',
  };
  return sentences[reason] ?? `it is malformed (${reason}). It may have been cut off or changed.`;
}

/** Call it only for a token whose signature is verified. */
function claimOf(text: string, name: string): string {
  return JSON.stringify(readToken(text).claims.get(name) ?? null).slice(0, 200);
}
