/**
 * A real Better-Auth server on 127.0.0.1: email and password, with the plugins `admin`, `bearer`
 * and `jwt`. `better-auth.ts` passes its options as JSON in the variable BETTER_AUTH_SERVER. A
 * command line would show the password of the database to every user of the machine. The server
 * prints one line of JSON when it is ready.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BetterAuthOptions } from 'better-auth';
import { escapeIdentifier, Pool } from 'pg';
import type { BetterAuthPackage } from './better-auth-packages.ts';
import { errorCode, messageOf } from './errors.ts';

export type Algorithm = 'EdDSA' | 'ES256' | 'ES512' | 'RS256' | 'PS256';

export interface ServerOptions {
  /** The npm package to run: another version of Better-Auth. */
  package?: BetterAuthPackage;
  databaseUrl: string;
  /** Loopback, unless a container says otherwise. */
  host?: string;
  /** 0 or left out: any free one. */
  port?: number;
  /** What the tokens carry as issuer, where that is not the address the server listens on. */
  publicOrigin?: string;
  secret?: string;
  /** The PostgreSQL schema that holds the tables. */
  schema?: string;
  idType?: 'text' | 'uuid' | 'serial';
  /** `snake` also serves tables as Drizzle makes them, with times that carry no zone. */
  columns?: 'camel' | 'snake';
  /** Plural tables, such as `users` and `jwkss`, as with Drizzle's `usePlural`. */
  plural?: boolean;
  /** Tokens name their session. Better-Auth's own default is that they do not. */
  sid?: boolean;
  algorithm?: Algorithm;
  /** Seconds until a signing key is replaced; left out, never. */
  rotationInterval?: number;
  /** Seconds that a replaced key stays published. */
  gracePeriod?: number;
  /** A time span such as `15m`: Better-Auth takes a number for a point in time. */
  expirationTime?: string;
  adminUserIds?: string[];
  /** Pages of these origins may call it, with their cookies. */
  trustedOrigins?: string[];
  rateLimit?: boolean;
  /** Users can turn on a second factor. `migrate` makes its table. */
  twoFactor?: boolean;
  /** Seconds for which a signed cookie replaces the session row. Without it, no cookie cache. */
  cookieCache?: number;
  /** Makes the tables with Better-Auth's own migrator. Without it they must be there. */
  migrate?: boolean;
}

export interface ReadyLine {
  ready: true;
  port: number;
  origin: string;
  pid: number;
}

const HOST = '127.0.0.1';
const SHUTDOWN_GRACE_MS = 500;
const DEV_SECRET = 'a secret for tests, which is the same on every machine';

// Drizzle keeps UTC wall-clock time in columns without a zone, and `pg` reads and writes those in
// the zone of the process: so this process lives in UTC, and so do its database sessions.
process.env['TZ'] = 'UTC';

const options = JSON.parse(process.env['BETTER_AUTH_SERVER'] ?? '{}') as ServerOptions;
const packageName = options.package ?? 'better-auth';
const [{ betterAuth }, { getMigrations }, { toNodeHandler }, { admin, bearer, jwt, twoFactor }] =
  (await Promise.all([
    import(packageName),
    import(`${packageName}/db/migration`),
    import(`${packageName}/node`),
    import(`${packageName}/plugins`),
  ])) as [
    typeof import('better-auth'),
    typeof import('better-auth/db/migration'),
    typeof import('better-auth/node'),
    typeof import('better-auth/plugins'),
  ];

try {
  await serve(options);
} catch (fault) {
  console.error(messageOf(fault));
  process.exit(1);
}

async function serve(options: ServerOptions): Promise<void> {
  const server = createServer();
  server.on('request', notYet);
  const port = await listen(server, options.host ?? HOST, options.port ?? 0);
  const origin = options.publicOrigin ?? `http://${HOST}:${port}`;

  const pool = openPool(options);
  endOnSigterm(server, pool);
  const settings = describe(options, origin, pool);
  if (options.migrate) await migrate(settings, options, pool);

  const auth = betterAuth(settings);
  await compareWithTables(auth.handler, origin);
  server.off('request', notYet);
  server.on('request', withCors(trustedOrigins(options), neverRejecting(toNodeHandler(auth))));
  const line: ReadyLine = { ready: true, port, origin, pid: process.pid };
  console.log(JSON.stringify(line));
}

/** Responds to a client that connects before the server is ready, so that it does not wait. */
function notYet(_request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(503).end();
}

async function listen(server: Server, host: string, port: number): Promise<number> {
  server.listen(port, host);
  await once(server, 'listening').catch((fault: unknown) => {
    if (errorCode(fault) !== 'EADDRINUSE') throw fault;
    throw new Error(`Port ${port}, meant for Better-Auth, is in use: choose another.`);
  });
  const address = server.address();
  return typeof address === 'object' && address ? address.port : port;
}

function openPool({ databaseUrl, schema }: ServerOptions): Pool {
  // A space ends an option, unless a backslash stands before it.
  const name = schema && escapeIdentifier(schema).replace(/[\\ ]/g, '\\$&');
  const searchPath = name ? ` -c search_path=${name}` : '';
  const pool = new Pool({ connectionString: databaseUrl, options: `-c TimeZone=UTC${searchPath}` });
  // An idle connection that the database closes is not a reason to die.
  pool.on('error', (fault) => console.error(`PostgreSQL: ${fault.message}`));
  return pool;
}

async function migrate(
  settings: BetterAuthOptions,
  { schema }: ServerOptions,
  pool: Pool,
): Promise<void> {
  if (schema) await pool.query(`CREATE SCHEMA IF NOT EXISTS ${escapeIdentifier(schema)}`);
  const { runMigrations } = await getMigrations(settings);
  await runMigrations();
}

// Better-Auth compares the tables with what it expects at its first request. Asked now, a
// difference ends the start with Better-Auth's own words.
async function compareWithTables(
  handler: (request: Request) => Promise<Response>,
  origin: string,
): Promise<void> {
  const response = await handler(new Request(`${origin}/api/auth/ok`));
  if (!response.ok) throw new Error(`Better-Auth answers ${response.status} to /api/auth/ok.`);
}

type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

// Better-Auth's own handler lets a failed comparison of the tables reject, which ends a process.
function neverRejecting(handle: Handler) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    handle(request, response).catch((fault: unknown) => {
      console.error(messageOf(fault));
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  };
}

/** From the options, and from the variable that the API reads, too (compose.yaml). */
function trustedOrigins(options: ServerOptions): string[] {
  const variable = process.env['CORS_ORIGINS'] ?? '';
  const more = variable.split(',').map((origin) => origin.trim());
  return [...(options.trustedOrigins ?? []), ...more.filter((origin) => origin !== '')];
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void;

/** Better-Auth leaves CORS to the server that it runs in. */
function withCors(origins: string[], handle: Listener): Listener {
  return (request, response) => {
    response.setHeader('Vary', 'Origin');
    const { origin } = request.headers;
    if (origin === undefined || !origins.includes(origin)) return handle(request, response);
    response.setHeader('Access-Control-Allow-Origin', origin);
    response.setHeader('Access-Control-Allow-Credentials', 'true');
    response.setHeader('Access-Control-Expose-Headers', 'X-Retry-After');
    if (request.method !== 'OPTIONS') return handle(request, response);
    response.setHeader('Access-Control-Allow-Methods', 'GET, POST');
    response.setHeader('Access-Control-Allow-Headers', 'Authorization, Content-Type');
    response.writeHead(204).end();
  };
}

function endOnSigterm(server: Server, pool: Pool): void {
  process.once('SIGTERM', () => {
    server.close();
    server.closeIdleConnections();
    const closed = Promise.all([once(server, 'close'), pool.end()]);
    const late = sleep(SHUTDOWN_GRACE_MS);
    void Promise.race([closed, late]).finally(() => process.exit(0));
  });
}

// ── Better-Auth's options ───────────────────────────────────────────────────────────────────────

function describe(options: ServerOptions, origin: string, pool: Pool): BetterAuthOptions {
  const named = namesOf(options);
  return {
    baseURL: origin,
    secret: options.secret ?? DEV_SECRET,
    database: pool,
    emailAndPassword: { enabled: true },
    trustedOrigins: trustedOrigins(options),
    rateLimit: { enabled: options.rateLimit ?? false },
    telemetry: { enabled: false },
    ...(options.idType && options.idType !== 'text'
      ? { advanced: { database: { generateId: options.idType } } }
      : {}),
    user: named('user', ['emailVerified', 'createdAt', 'updatedAt']),
    session: {
      ...named('session', [
        'expiresAt',
        'createdAt',
        'updatedAt',
        'ipAddress',
        'userAgent',
        'userId',
      ]),
      ...(options.cookieCache === undefined
        ? {}
        : { cookieCache: { enabled: true, maxAge: options.cookieCache } }),
    },
    account: named('account', [
      'accountId',
      'providerId',
      'userId',
      'accessToken',
      'refreshToken',
      'idToken',
      'accessTokenExpiresAt',
      'refreshTokenExpiresAt',
      'createdAt',
      'updatedAt',
    ]),
    verification: named('verification', ['expiresAt', 'createdAt', 'updatedAt']),
    plugins: [
      admin({
        ...(options.adminUserIds ? { adminUserIds: options.adminUserIds } : {}),
        // The oldest supported version accepts only a text.
        ...(options.package ? {} : { bannedUserMessage: banReasonOf }),
        schema: {
          user: named('user', ['banReason', 'banExpires']),
          session: named('session', ['impersonatedBy']),
        },
      }),
      bearer(),
      ...(options.twoFactor ? [twoFactor({ skipVerificationOnEnable: true })] : []),
      jwt({
        jwks: {
          keyPairConfig: { alg: options.algorithm ?? 'EdDSA' },
          ...(options.rotationInterval === undefined
            ? {}
            : { rotationInterval: options.rotationInterval }),
          ...(options.gracePeriod === undefined ? {} : { gracePeriod: options.gracePeriod }),
        },
        jwt: {
          ...(options.expirationTime ? { expirationTime: options.expirationTime } : {}),
          ...(options.sid
            ? { definePayload: ({ user, session }) => ({ ...user, sid: session.id }) }
            : {}),
        },
        schema: { jwks: named('jwks', ['publicKey', 'privateKey', 'createdAt', 'expiresAt']) },
      }),
    ],
  };
}

/** The user has sent the right password, and may read the reason. */
function banReasonOf({ banReason }: { banReason?: string | null | undefined }): string {
  return `Reason: ${banReason ?? 'none was given'}`;
}

interface Names {
  modelName?: string;
  fields?: Record<string, string>;
}

function namesOf({ columns, plural }: ServerOptions): (table: string, fields: string[]) => Names {
  return (table, fields) => ({
    ...(plural ? { modelName: `${table}s` } : {}),
    ...(columns === 'snake' ? { fields: Object.fromEntries(fields.map(withSnakeName)) } : {}),
  });
}

function withSnakeName(field: string): [string, string] {
  return [field, field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)];
}
