import { createConnection } from 'node:net';
import { Client, type ClientConfig, type Pool, type PoolClient } from 'pg';
import { isDatabaseUnavailable } from './postgres-errors.js';

/** How long to wait for a new connection, for a free connection of the pool, and for a result. */
export const CONNECT_TIMEOUT_MS = 1000;
export const POOL_WAIT_TIMEOUT_MS = 2000;
export const QUERY_TIMEOUT_MS = 2000;

/** The message names the cause for an operator. It never contains the password. */
export class UnusableDatabaseError extends Error {}

/** Runs `work` on a connection outside the pool: for migrations, the doctor and the start. */
export async function withConnection<Result>(
  url: string,
  work: (client: Client) => Promise<Result>,
  options: ClientConfig = {},
): Promise<Result> {
  const client = new Client({
    connectionString: url,
    application_name: 'gatehouse',
    connectionTimeoutMillis: 5000,
    keepAlive: true,
    ...options,
  });
  // The query in flight rejects anyway. Without a listener, the event would end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    throw new UnusableDatabaseError(describeConnectionError(error, url), { cause: error });
  }
  try {
    return await work(client);
  } finally {
    // A stopped server never completes the protocol's termination.
    await Promise.race([client.end(), new Promise((resolve) => setTimeout(resolve, 500).unref())]);
  }
}

/**
 * `pg-pool` has one timeout for connecting and for waiting in its queue, but each needs its own. A
 * server that does not accept a connection within a second is down. A longer queue only means a
 * busy machine: its requests still succeed, and failing them adds retries.
 */
export class PooledClient extends Client {
  constructor(config?: ClientConfig) {
    super({ ...config, connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
    this.connection.once('backendKeyData', (key: BackendKey) => backendKeys.set(this, key));
  }
}

/** What a request to cancel the query of a connection must contain. */
type BackendKey = Record<'processID' | 'secretKey', number>;

const backendKeys = new WeakMap<Client, BackendKey>();

/**
 * The `query_timeout` of `pg` gives a busy connection to the next caller. Here a query that times
 * out destroys its connection and asks the server to cancel the statement. That also works behind
 * PgBouncer, which rejects `statement_timeout` as a start-up parameter.
 */
export function enforceQueryTimeout(pool: Pool, timeoutMs: number): void {
  pool.on('connect', (client) => {
    const send = client.query.bind(client) as (...query: unknown[]) => unknown;
    client.query = ((...query: unknown[]) => {
      const result = send(...query);
      // A cursor is not a promise. Gatehouse uses none.
      if (!(result instanceof Promise)) return result;
      const timer = setTimeout(() => cancelQuery(client), timeoutMs);
      return result.finally(() => clearTimeout(timer));
    }) as typeof client.query;
  });
}

/**
 * Kysely runs MikroORM's queries, and does not release every connection:
 * - One whose `rollback` fails (https://github.com/kysely-org/kysely/issues/1990). On a lost
 *   connection it always fails.
 * - One that is being opened when the pool begins to close: Kysely has forgotten the pool by then.
 *
 * Each such connection would stay in the pool forever, and the pool could not be closed.
 */
export function releaseLostConnections(pool: Pool): void {
  const inUse = new WeakSet<PoolClient>();
  pool.on('acquire', (client) => inUse.add(client));
  pool.on('release', (_error, client) => inUse.delete(client));
  pool.on('connect', (client) => {
    client.once('end', () => {
      if (!inUse.has(client)) return;
      client.release(true);
      // `pg-pool` throws on a second release, so a later one must do nothing.
      client.release = () => undefined;
    });
    if (pool.ending) void client.end();
  });
}

/**
 * The maximum age of a pooled connection. Without it, old connections would be used for ever after
 * the address of the database moves to another server and the old server stays alive.
 */
export const MAX_LIFETIME_SECONDS = 20;

/** Connections that are closed when they are released. */
const expired = new WeakSet<PoolClient>();
/** All connections of each pool. */
const membersOf = new WeakMap<Pool, Set<PoolClient>>();

/**
 * Discards a connection when its server becomes read-only or a standby, or rejects a write as one.
 * The next connection may reach the server that took over. PostgreSQL 14 and later report both
 * settings without a query. If it was read-only before, reads work and the connection stays.
 */
export function discardReadOnlyConnections(pool: Pool): void {
  const members = new Set<PoolClient>();
  membersOf.set(pool, members);
  pool.on('connect', (client) => {
    members.add(client);
    client.connection.on('parameterStatus', ({ parameterName, parameterValue }: Setting) => {
      if (READ_ONLY_SETTING.test(parameterName) && parameterValue === 'on') expired.add(client);
    });
    client.connection.on('errorMessage', ({ code }: { code?: string }) => {
      if (code === '25006') expired.add(client);
    });
  });
  pool.on('remove', (client) => members.delete(client));
  pool.on('release', (_error, client) => {
    // The pool does not take back a connection that is ending.
    if (expired.has(client)) void client.end();
  });
}

type Setting = Record<'parameterName' | 'parameterValue', string>;

const READ_ONLY_SETTING = /^(default_transaction_read_only|in_hot_standby)$/;

/**
 * Discards every connection of the pool: idle ones now, the others when they are released. Later
 * queries use new connections, to the server that has the address now. In a busy pool, queries take
 * the idle ones first. Then some attempts here fail, and the others must still be released.
 */
export async function renewConnections(pool: Pool): Promise<void> {
  for (const client of membersOf.get(pool) ?? []) expired.add(client);
  const taken = Array.from({ length: pool.idleCount }, () => pool.connect());
  await Promise.allSettled(taken.map(async (client) => (await client).release()));
}

/** Closes the socket without the protocol's termination. The connection's queries reject now. */
export function destroyConnection(client: Client): void {
  client.connection.stream.destroy();
}

function cancelQuery(client: PoolClient): void {
  const { host, port } = client;
  // The pool does not take it back.
  destroyConnection(client);
  const key = backendKeys.get(client);
  if (!key) return;

  // PostgreSQL's CancelRequest: length, code, process, secret. The server sends no response. The
  // request is not encrypted, like psql's before version 17. If it is lost, the statement runs on.
  const request = Buffer.alloc(16);
  request.writeInt32BE(16, 0);
  request.writeInt32BE(80_877_102, 4);
  request.writeInt32BE(key.processID, 8);
  request.writeInt32BE(key.secretKey, 12);
  const socket = host.startsWith('/')
    ? createConnection(`${host}/.s.PGSQL.${port}`)
    : createConnection(port, host);
  socket.on('error', () => undefined);
  socket.setTimeout(CONNECT_TIMEOUT_MS, () => socket.destroy());
  socket.end(request);
}

/** One sentence for each way in which a connection cannot be made. */
function describeConnectionError(error: unknown, url: string): string {
  const { hostname, port, pathname, username } = new URL(url);
  const address = `${hostname || 'localhost'}:${port || 5432}`;
  const code = codeOf(error);
  if (code === 'ECONNREFUSED')
    return `PostgreSQL is not reachable at ${address} (connection refused).`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return `The database host ${hostname} cannot be resolved (DNS).`;
  }
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH') {
    return `PostgreSQL is not reachable at ${address}.`;
  }
  if (code === '28P01' || code === '28000') {
    return `PostgreSQL at ${address} rejects user "${decoded(username)}" (wrong user, password or pg_hba.conf).`;
  }
  if (code === '3D000') {
    return `PostgreSQL at ${address} has no database "${decoded(pathname.slice(1))}".`;
  }
  const message = firstLineOf(error);
  if (/timeout/i.test(message) && !SQLSTATE.test(code ?? '')) {
    return `PostgreSQL at ${address} did not respond in time.`;
  }
  return `PostgreSQL at ${address} cannot be used: ${message}.`;
}

/**
 * A message for an error that PostgreSQL returned to a command-line program, or undefined for any
 * other error. MikroORM puts the SQL before the message, but its cause has the message alone.
 */
export function describeQueryError(error: unknown): string | undefined {
  const cause = rootCause(error);
  const code = codeOf(cause);
  if (isDatabaseUnavailable(cause))
    return `The connection to PostgreSQL was lost: ${firstLineOf(cause)}.`;
  if (code === undefined || !SQLSTATE.test(code)) return undefined;
  const remedy =
    code === '42501'
      ? ' Grant the permission, or name a user that has it in DATABASE_DIRECT_URL.'
      : '';
  return `PostgreSQL returned an error: ${firstLineOf(cause)} (${code}).${remedy}`;
}

// Some Node codes (EPIPE) also have five capital letters.
const SQLSTATE = /^(?=.*\d)[0-9A-Z]{5}$/;

function rootCause(error: unknown): unknown {
  const cause = property(error, 'cause') ?? property(error, 'previous');
  return cause === undefined || codeOf(cause) === undefined ? error : rootCause(cause);
}

function codeOf(error: unknown): string | undefined {
  const code = property(error, 'code');
  return typeof code === 'string' ? code : undefined;
}

function firstLineOf(error: unknown): string {
  const message = property(error, 'message');
  const [line = ''] = typeof message === 'string' ? message.split('\n') : [];
  return line.replace(/[.\s]+$/, '') || 'no reason given';
}

// Not `instanceof Error`: under Jest, Node's errors come from another realm.
function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
