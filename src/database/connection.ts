import type { EventEmitter } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { Client, type ClientBase, type ClientConfig, type Pool, type PoolClient } from 'pg';
import { isDatabaseUnavailable } from './postgres-errors.js';

/** How long to wait for a connection, for a place in the pool, and for an answer. */
export const CONNECT_TIMEOUT_MS = 1000;
export const POOL_WAIT_TIMEOUT_MS = 2000;
export const QUERY_TIMEOUT_MS = 2000;

/** A database that cannot be used, in a sentence that names the cause and never the password. */
export class UnusableDatabaseError extends Error {}

/** One connection of its own, outside the pool: for migrations, the doctor and the first look. */
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
  // The query in flight rejects by itself; without a listener the event would end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    throw new UnusableDatabaseError(describeConnectionError(error, url), { cause: error });
  }
  try {
    return await work(client);
  } finally {
    // A server that has stopped does not answer the farewell either.
    await Promise.race([client.end(), new Promise((resolve) => setTimeout(resolve, 500).unref())]);
  }
}

/**
 * The pool has one limit for connecting and for waiting until another request is done. A server that does
 * not let us in within a second is not there, and is soon to be asked again; a queue that takes longer,
 * because the machine is busy, still ends well, and refusing it would only make more of the same.
 */
export class PooledClient extends Client {
  constructor(config?: ClientConfig) {
    super({ ...config, connectionTimeoutMillis: CONNECT_TIMEOUT_MS });
  }
}

/**
 * `pg` can stop waiting for an answer (`query_timeout`), but then hands the connection, still busy, to
 * the next caller. Here a query that is not answered in time takes its connection with it, and asks
 * the server to cancel what it is doing: that works behind PgBouncer too, which refuses
 * `statement_timeout` as a start-up parameter.
 */
export function enforceQueryTimeout(pool: Pool, milliseconds: number): void {
  pool.on('connect', (client) => {
    const send = client.query.bind(client) as (...query: unknown[]) => unknown;
    client.query = ((...query: unknown[]) => {
      const answer = send(...query);
      // A cursor is no promise. Nothing here uses one.
      if (!(answer instanceof Promise)) return answer;
      const timer = setTimeout(() => cancelQuery(client), milliseconds);
      return answer.finally(() => clearTimeout(timer));
    }) as typeof client.query;
  });
}

/**
 * Kysely, which runs MikroORM's transactions, never releases a connection whose `rollback` fails (its
 * issue 1990), and on a lost connection it always fails. Each would cost the pool a place for ever, and
 * the pool could not be closed any more.
 */
export function releaseLostConnections(pool: Pool): void {
  const inUse = new WeakSet<PoolClient>();
  pool.on('acquire', (client) => inUse.add(client));
  pool.on('release', (_error, client) => inUse.delete(client));
  pool.on('connect', (client) => {
    client.once('end', () => {
      if (!inUse.has(client)) return;
      client.release(true);
      // Whoever remembers to do it later must not hear that it was done.
      client.release = () => undefined;
    });
  });
}

/**
 * How long a connection of the pool is used. When the address of the database moves to another server and
 * the old one stays alive, the old connections would otherwise be used for ever.
 */
export const MAX_LIFETIME_SECONDS = 20;

/** Connections that go when they are released, with the pool that each belongs to. */
const expired = new WeakSet<PoolClient>();
const membersOf = new WeakMap<Pool, Set<PoolClient>>();

/**
 * Discards a connection whose server becomes read-only or a standby, or refuses a write as one: the
 * next one may lead to the server that took over. PostgreSQL reports both settings by itself since
 * version 14. A connection to a server that was read-only before is kept, since reads still work.
 */
export function discardReadOnlyConnections(pool: Pool): void {
  const members = new Set<PoolClient>();
  membersOf.set(pool, members);
  pool.on('connect', (client) => {
    members.add(client);
    const { connection } = client as PoolClient & Internals;
    connection.on('parameterStatus', ({ parameterName, parameterValue }) => {
      if (READ_ONLY_SETTING.test(parameterName) && parameterValue === 'on') expired.add(client);
    });
    connection.on('errorMessage', ({ code }) => {
      if (code === '25006') expired.add(client);
    });
  });
  pool.on('remove', (client) => members.delete(client));
  pool.on('release', (_error, client) => {
    // The pool does not take back a connection that is ending.
    if (expired.has(client)) void client.end();
  });
}

const READ_ONLY_SETTING = /^(default_transaction_read_only|in_hot_standby)$/;

/**
 * Discards every connection of the pool: idle ones now, the others when they are released. What is
 * read after this comes from the server to which the address leads now.
 */
export async function renewConnections(pool: Pool): Promise<void> {
  for (const client of membersOf.get(pool) ?? []) expired.add(client);
  const taken = Array.from({ length: pool.idleCount }, () => pool.connect());
  for (const client of await Promise.all(taken)) client.release();
}

/** Members of `pg`'s client that its types leave out. */
interface Internals {
  host: string;
  port: number;
  processID: number | null;
  secretKey: number | null;
  connection: EventEmitter<{
    parameterStatus: [{ parameterName: string; parameterValue: string }];
    errorMessage: [{ code?: string }];
  }> & { stream: Socket };
}

/** Ends a connection without a farewell, which a dead one would never answer. Its queries reject now. */
export function destroyConnection(client: ClientBase): void {
  (client as ClientBase & Internals).connection.stream.destroy();
}

function cancelQuery(client: PoolClient): void {
  const { host, port, processID, secretKey } = client as PoolClient & Internals;
  // The pool does not take it back.
  destroyConnection(client);
  if (processID === null || secretKey === null) return;

  // PostgreSQL's CancelRequest: length, code, process, secret; no answer comes back. It goes as plain
  // text, as psql's did until version 17. Where it does not arrive, the statement ends by itself.
  const request = Buffer.alloc(16);
  request.writeInt32BE(16, 0);
  request.writeInt32BE(80_877_102, 4);
  request.writeInt32BE(processID, 8);
  request.writeInt32BE(secretKey, 12);
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
  const place = `${hostname || 'localhost'}:${port || 5432}`;
  const code = codeOf(error);
  if (code === 'ECONNREFUSED') return `No PostgreSQL answers at ${place} (connection refused).`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return `The host of the database, ${hostname}, is not known to the name service.`;
  }
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH') {
    return `PostgreSQL at ${place} cannot be reached.`;
  }
  if (code === '28P01' || code === '28000') {
    return `PostgreSQL at ${place} does not let user "${decoded(username)}" in (wrong user, password or pg_hba.conf).`;
  }
  if (code === '3D000') {
    return `PostgreSQL at ${place} has no database "${decoded(pathname.slice(1))}".`;
  }
  const message = firstLineOf(error);
  if (/timeout/i.test(message) && !SQLSTATE.test(code ?? '')) {
    return `PostgreSQL at ${place} did not answer in time.`;
  }
  return `PostgreSQL at ${place} cannot be used: ${message}.`;
}

/**
 * The sentence for what PostgreSQL answered to a query of a program of ours, or undefined where the
 * error is not PostgreSQL's. MikroORM puts the SQL before the message; the cause has it alone.
 */
export function describeQueryError(error: unknown): string | undefined {
  const said = rootCause(error);
  const code = codeOf(said);
  if (isDatabaseUnavailable(said))
    return `The connection to PostgreSQL was lost: ${firstLineOf(said)}.`;
  if (code === undefined || !SQLSTATE.test(code)) return undefined;
  const remedy =
    code === '42501' ? ' Grant it, or let DATABASE_DIRECT_URL name a user that may do so.' : '';
  return `PostgreSQL refuses: ${firstLineOf(said)} (${code}).${remedy}`;
}

// Node's own codes (EPIPE) can be of five capital letters, too.
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
  return line.replace(/[.\s]+$/, '') || 'it gave no reason';
}

// Not `instanceof Error`: under Jest, Node's own errors come from another realm.
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
