import { Client } from 'pg';
import { Environment } from './environment.js';
import { isLoopback } from './loopback.js';

/** What an operator should change, although Gatehouse can run. `event` is stable, for alerts. */
export interface Warning {
  event: string;
  message: string;
}

/** What the environment alone shows. No message quotes a value: it may be a secret. */
export function configurationWarnings(environment: Environment, names: string[]): Warning[] {
  return [
    ...tokenOnly(environment),
    ...unknownVariables(names),
    ...databasesWithoutTls(environment),
  ];
}

export const TOKEN_ONLY_WARNING =
  'SESSION_BINDING=token-only: a revoked session is refused only when its token expires.';

function tokenOnly({ SESSION_BINDING }: Environment): Warning[] {
  if (SESSION_BINDING !== 'token-only') return [];
  return [{ event: 'config.token-only', message: TOKEN_ONLY_WARNING }];
}

// ── Names that look like ours ───────────────────────────────────────────────────────────────────

/** Families that hardly another program uses, unlike `DATABASE_` or `SESSION_`. */
/** `REMEMBERED_` is the former name of the cache limits. */
const FAMILIES = /^(JWT|JWKS|RATE_LIMIT|TRUST_PROXY|CHANGE_FEED|DATABASE_POOL|REMEMBERED)_/;
/** Kubernetes and Docker describe a service `jwks` in JWKS_SERVICE_HOST, JWKS_PORT and the like. */
const SERVICE_LINK = /_(SERVICE_(HOST|PORT)|PORT)(_|$)/;
/** Shorter names differ by two letters from many others: HOST, PORT and POST. */
const MIN_TYPO_LENGTH = 8;
const MAX_TYPO_DISTANCE = 2;

function unknownVariables(names: string[]): Warning[] {
  const ours = Object.keys(new Environment());
  return names.flatMap((name) => {
    if (ours.includes(name) || SERVICE_LINK.test(name)) return [];
    const meant = ours.find((known) => isMeant(name, known));
    if (meant === undefined && !FAMILIES.test(name)) return [];
    const question = meant === undefined ? '' : ` Did you mean ${meant}?`;
    const message = `${name} is not a variable of Gatehouse and has no effect.${question}`;
    return [{ event: 'config.unknown-variable', message }];
  });
}

/** A typing error, another case, or a name that was cut off (`SESSION_BIND`). */
function isMeant(name: string, known: string): boolean {
  const upper = name.toUpperCase();
  if (upper === known) return true;
  if (name !== upper || name.length < MIN_TYPO_LENGTH) return false;
  const isCutOff = known.startsWith(name) && /_./.test(name) && name.length >= known.length * 0.6;
  return isCutOff || editDistance(name, known) <= MAX_TYPO_DISTANCE;
}

/** Levenshtein: how many letters to insert, delete or replace. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [index, letter] of from.split('').entries()) {
    const next = [index + 1];
    for (const [column, other] of to.split('').entries()) {
      next.push(
        Math.min(
          (next[column] ?? 0) + 1,
          (row[column + 1] ?? 0) + 1,
          (row[column] ?? 0) + (letter === other ? 0 : 1),
        ),
      );
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}

// ── Transport ───────────────────────────────────────────────────────────────────────────────────

function databasesWithoutTls(environment: Environment): Warning[] {
  if (environment.NODE_ENV !== 'production') return [];
  const names = (['DATABASE_URL', 'DATABASE_DIRECT_URL'] as const).filter((name) => {
    const url = environment[name];
    return url !== undefined && isRemoteWithoutTls(url);
  });
  if (names.length === 0) return [];
  const message = `${names.join(' and ')}: the connection to PostgreSQL has no TLS, and its server is another machine. Add ?sslmode=verify-full.`;
  return [{ event: 'config.database-without-tls', message }];
}

/** As `pg` itself reads the URL and its own variables (PGSSLMODE). Nothing is connected. */
function isRemoteWithoutTls(url: string): boolean {
  const { host, ssl } = new Client({ connectionString: url });
  // A socket; this machine; a name without a dot, which only a network of containers resolves.
  const isNear =
    host.startsWith('/') || host === '::1' || isLoopback(host) || /^[^.:]+$/.test(host);
  return !ssl && !isNear;
}
