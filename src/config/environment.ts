import { existsSync } from 'node:fs';
import { plainToInstance } from 'class-transformer';
import { IsIn, IsNotIn, IsOptional, Matches, validateSync } from 'class-validator';
import { crossFieldErrors } from './cross-field-errors.js';
import { readPermissionsFile } from './permissions-file.js';
import type { RolePermissions } from './role-permissions.js';
import {
  Choice,
  Flag,
  HttpUrl,
  List,
  Origins,
  PostgresUrl,
  proxiesIn,
  Text,
  TrustedProxies,
  Whole,
} from './validators.js';

export const ALGORITHMS = ['EdDSA', 'Ed25519', 'ES256', 'ES512', 'RS256', 'PS256'] as const;

/**
 * Every variable that Gatehouse reads, with its rule and its default. `.env.example` documents
 * them. No other file reads `process.env`.
 */
export class Environment {
  @Choice('development', 'test', 'production')
  NODE_ENV: 'development' | 'test' | 'production' = 'development';

  @Text()
  HOST = '127.0.0.1';

  @Whole(0, 65_535)
  PORT = 8000;

  @IsOptional()
  @Whole(0, 65_535)
  METRICS_PORT?: number;

  @PostgresUrl()
  DATABASE_URL = 'postgresql://postgres@127.0.0.1:5432/postgres';

  @IsOptional()
  @PostgresUrl()
  DATABASE_DIRECT_URL?: string;

  @Whole(1, 1000)
  DATABASE_POOL_MAX = 10;

  @IsOptional()
  @Matches(/^[^\0"?]{1,63}$/, { message: 'must be the plain name of a PostgreSQL schema' })
  DATABASE_SCHEMA?: string;

  @IsOptional()
  @Matches(/^[^\p{Cc}"?]{1,63}$/u, { message: 'must be the plain name of a PostgreSQL role' })
  DATABASE_RUNTIME_ROLE?: string;

  @Choice('auto', 'camel', 'snake')
  DATABASE_COLUMNS: 'auto' | 'camel' | 'snake' = 'auto';

  @Whole(100, 600_000)
  DATABASE_STATEMENT_TIMEOUT_MS = 5000;

  @HttpUrl()
  BETTER_AUTH_URL = 'http://localhost:3000';

  @IsOptional()
  @HttpUrl()
  JWKS_URL?: string;

  @IsOptional()
  @Text()
  JWT_ISSUER?: string;

  @IsOptional()
  @List({ atLeastOne: true })
  JWT_AUDIENCE?: string[];

  @List({ atLeastOne: true })
  @IsIn(ALGORITHMS, { each: true, message: `may only name ${ALGORITHMS.join(', ')}` })
  JWT_ALGORITHMS: string[] = [...ALGORITHMS];

  @Whole(0, 300)
  JWT_LEEWAY_SECONDS = 5;

  @Whole(1, 31_536_000)
  JWT_MAX_LIFETIME_SECONDS = 86_400;

  @Whole(1, 3600)
  JWKS_COOLDOWN_SECONDS = 5;

  @Whole(1, 86_400)
  JWKS_REFRESH_SECONDS = 300;

  @Whole(1, 31_536_000)
  JWKS_MAX_STALE_SECONDS = 86_400;

  @Text()
  @IsNotIn(['iss', 'sub', 'aud', 'exp', 'nbf', 'iat'], {
    message: 'must not be a claim that has another meaning in every token',
  })
  JWT_SESSION_CLAIM = 'sid';

  @Choice('prefer-sid', 'require-sid', 'token-only')
  SESSION_BINDING: 'prefer-sid' | 'require-sid' | 'token-only' = 'prefer-sid';

  @Flag()
  CHANGE_FEED = true;

  @Whole(1, 10_000_000)
  TOKEN_CACHE_MAX = 50_000;

  @Whole(1, 10_000_000)
  USER_CACHE_MAX = 50_000;

  @Whole(1, 3600)
  CACHE_MAX_AGE_SECONDS = 30;

  @List({ atLeastOne: true })
  ROLES: string[] = ['user', 'admin'];

  @List({ atLeastOne: true })
  ADMIN_ROLES: string[] = ['admin'];

  @List()
  ADMIN_USER_IDS: string[] = [];

  @IsOptional()
  @Text()
  PERMISSIONS_FILE?: string;

  @Whole(1024, 104_857_600)
  BODY_LIMIT = 16_384;

  @Origins()
  CORS_ORIGINS: string[] = [];

  @List()
  @Matches(/^[\w!#$%&'*+.^`|~-]+$/, { each: true, message: 'must list names of headers' })
  CORS_ALLOWED_HEADERS: string[] = [];

  @TrustedProxies()
  TRUST_PROXY = 'false';

  @Choice('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent')
  LOG_LEVEL: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent' = 'info';

  @IsOptional()
  @Choice('json', 'pretty')
  LOG_FORMAT?: 'json' | 'pretty';

  @Whole(0, 1_000_000)
  RATE_LIMIT_PER_MINUTE = 300;

  @Flag()
  DOCS_ENABLED = true;

  @Flag()
  DOCS_SIGN_IN = true;

  @Whole(0, 300_000)
  SHUTDOWN_DELAY_MS = 5000;

  /** The content of PERMISSIONS_FILE. It is not a variable. */
  declare permissions?: RolePermissions;

  /** Better-Auth writes its origin, without a path, as `iss` and `aud`. */
  get issuer(): string {
    return this.JWT_ISSUER ?? new URL(this.BETTER_AUTH_URL).origin;
  }

  get audiences(): string[] {
    return this.JWT_AUDIENCE ?? [this.issuer];
  }

  get jwksUrl(): string {
    return this.JWKS_URL ?? `${this.BETTER_AUTH_URL.replace(/\/+$/, '')}/api/auth/jwks`;
  }

  /** The address without a pooler, because migrations need a session of their own. */
  get directUrl(): string {
    return this.DATABASE_DIRECT_URL ?? this.DATABASE_URL;
  }

  get logFormat(): 'json' | 'pretty' {
    return this.LOG_FORMAT ?? (this.NODE_ENV === 'development' ? 'pretty' : 'json');
  }

  /** Express's `trust proxy`: a number of hops, or the addresses of trusted proxies. */
  get trustProxy(): false | number | string[] {
    return proxiesIn(this.TRUST_PROXY) ?? false;
  }
}

/** Lists every error of an environment, one line each. */
export class InvalidEnvironmentError extends Error {
  constructor(readonly errors: string[]) {
    super(`The environment is not usable:\n${errors.map((error) => `  - ${error}`).join('\n')}`);
  }
}

/** Reads the environment of this process, and in development also the `.env` file. */
export function readEnvironment(): Environment {
  const stage = process.env['NODE_ENV'] || 'development';
  if (stage === 'development' && existsSync('.env')) process.loadEnvFile('.env');
  return parseEnvironment(process.env);
}

/** The names only, for warnings about variables that Gatehouse does not read. */
export function environmentNames(): string[] {
  return Object.keys(process.env);
}

/** Throws `InvalidEnvironmentError` with every error of the variables. */
export function parseEnvironment(variables: Record<string, string | undefined>): Environment {
  const names = Object.keys(new Environment());
  const given = names.flatMap((name) => {
    const value = variables[name];
    return value === undefined || (value === '' && !NEVER_EMPTY.has(name)) ? [] : [[name, value]];
  });
  const environment = plainToInstance(Environment, Object.fromEntries(given) as object, {
    exposeDefaultValues: true,
  });
  const errors = [...ruleErrors(environment), ...crossFieldErrors(environment, variables)];
  if (!errors.some((error) => error.startsWith('PERMISSIONS_FILE'))) {
    const { permissions, faults } = readPermissionsFile(environment);
    errors.push(...faults.map((fault) => `PERMISSIONS_FILE ${fault}`));
    if (permissions) environment.permissions = permissions;
  }
  if (errors.length > 0) throw new InvalidEnvironmentError(errors);
  return environment;
}

/**
 * An empty value of another variable counts as unset, as in `FOO: ${FOO:-}` of a Compose file. For
 * these two it could mean "check nothing", so it is an error.
 */
const NEVER_EMPTY = new Set(['JWT_ISSUER', 'JWT_AUDIENCE']);

function ruleErrors(environment: Environment): string[] {
  // The messages never contain a value: DATABASE_URL has a password.
  return validateSync(environment).map(({ property, constraints }) => {
    const [message] = Object.values(constraints ?? {});
    return `${property} ${message}`;
  });
}
