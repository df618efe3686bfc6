import { Client } from 'pg';
import { DEFAULT_ROLE } from './role-permissions.js';
import { Environment } from './environment.js';
import { isLoopback } from './loopback.js';

/** A problem that does not stop Gatehouse. `event` is stable, so that alerts can use it. */
export interface Warning {
  event: string;
  message: string;
}

/** Warnings about the environment. No message contains a value that may be a secret. */
export function configurationWarnings(environment: Environment, names: string[]): Warning[] {
  return [
    ...tokenOnly(environment),
    ...unknownVariables(names),
    ...databasesWithoutTls(environment),
    ...rolesWithoutPermissions(environment),
  ];
}

export const TOKEN_ONLY_WARNING =
  'SESSION_BINDING=token-only: a revoked session is refused only when its token expires.';

function tokenOnly({ SESSION_BINDING }: Environment): Warning[] {
  if (SESSION_BINDING !== 'token-only') return [];
  return [{ event: 'config.token-only', message: TOKEN_ONLY_WARNING }];
}

// ── Unknown variables ──────────────────────────────────────────────────────────────────────────

/**
 * Prefixes that other programs rarely use, unlike `DATABASE_` or `SESSION_`. The cache limits had
 * the prefix `REMEMBERED_` before.
 */
const FAMILIES = /^(JWT|JWKS|RATE_LIMIT|TRUST_PROXY|CHANGE_FEED|DATABASE_POOL|REMEMBERED)_/;
/** Kubernetes and Docker set such variables for a service `jwks`: JWKS_SERVICE_HOST, JWKS_PORT. */
const SERVICE_LINK = /_(SERVICE_(HOST|PORT)|PORT)(_|$)/;
/** Shorter names are too similar to unrelated ones: HOST, PORT and POST. */
const MIN_TYPO_LENGTH = 8;
const MAX_TYPO_DISTANCE = 2;

function unknownVariables(names: string[]): Warning[] {
  const ours = Object.keys(new Environment());
  return names.flatMap((name) => {
    if (ours.includes(name) || SERVICE_LINK.test(name)) return [];
    const meant = ours.find((candidate) => isMeant(name, candidate));
    if (meant === undefined && !FAMILIES.test(name)) return [];
    const question = meant === undefined ? '' : ` Did you mean ${meant}?`;
    const message = `${name} is not a variable of Gatehouse and has no effect.${question}`;
    return [{ event: 'config.unknown-variable', message }];
  });
}

/** Whether a name is a typo, another case or a truncated form (`SESSION_BIND`) of our variable. */
function isMeant(name: string, variable: string): boolean {
  const upper = name.toUpperCase();
  if (upper === variable) return true;
  if (name !== upper || name.length < MIN_TYPO_LENGTH) return false;
  const isCutOff =
    variable.startsWith(name) && /_./.test(name) && name.length >= variable.length * 0.6;
  return isCutOff || editDistance(name, variable) <= MAX_TYPO_DISTANCE;
}

/** Levenshtein distance: the number of letters to insert, delete or replace. */
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
  const message = `${names.join(' and ')}: the connection to PostgreSQL on another machine does not use TLS. Add ?sslmode=verify-full.`;
  return [{ event: 'config.database-without-tls', message }];
}

/** Uses the parser of `pg`, which also reads PGSSLMODE. It does not connect. */
function isRemoteWithoutTls(url: string): boolean {
  const { host, ssl } = new Client({ connectionString: url });
  // A Unix socket, this machine, or a name without a dot, as in a container network.
  const isLocal =
    host.startsWith('/') || host === '::1' || isLoopback(host) || /^[^.:]+$/.test(host);
  return !ssl && !isLocal;
}

// ── Roles ───────────────────────────────────────────────────────────────────────────────────────

/** Users who may set roles can assign such a role, and Better-Auth may give it permissions. */
function rolesWithoutPermissions({ permissions, ROLES }: Environment): Warning[] {
  const roles = permissions
    ? ROLES.filter((role) => role !== DEFAULT_ROLE && !permissions.has(role))
    : [];
  if (roles.length === 0) return [];
  const names = roles.map((role) => JSON.stringify(role)).join(', ');
  const message = `PERMISSIONS_FILE lacks ${names}, which ROLES lists. Users who may set roles can give a role that allows nothing here. Export the file again, or shorten ROLES.`;
  return [{ event: 'config.role-without-permissions', message }];
}
