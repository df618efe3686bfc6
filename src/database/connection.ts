import { createConnection, type Socket } from 'node:net';
import { Client, type ClientConfig, type Pool, type PoolClient } from 'pg';

/** How long to wait for a connection, and then for an answer on it. */
export const CONNECT_MS = 1000;
export const QUERY_MS = 2000;

/** A database that cannot be used, in a sentence that names the cause and never the password. */
export class DatabaseUnusable extends Error {}

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
    throw new DatabaseUnusable(explainConnectionFault(error, url), { cause: error });
  }
  try {
    return await work(client);
  } finally {
    // A server that has stopped does not answer the farewell either.
    await Promise.race([client.end(), new Promise((resolve) => setTimeout(resolve, 500).unref())]);
  }
}

/**
 * `pg` can stop waiting for an answer (`query_timeout`), but then hands the connection, still busy, to
 * the next caller. Here a query that is not answered in time takes its connection with it, and asks
 * the server to cancel what it is doing: that works behind PgBouncer too, which refuses
 * `statement_timeout` as a start-up parameter.
 */
export function limitWaiting(pool: Pool, milliseconds: number): void {
  pool.on('connect', (client) => {
    const send = client.query.bind(client) as (...query: unknown[]) => unknown;
    client.query = ((...query: unknown[]) => {
      const answer = send(...query);
      if (!(answer instanceof Promise)) return answer;
      const timer = setTimeout(() => giveUp(client), milliseconds);
      return answer.finally(() => clearTimeout(timer));
    }) as typeof client.query;
  });
}

/** Members of `pg`'s client that its types leave out. */
interface Internals {
  host: string;
  port: number;
  processID: number | null;
  secretKey: number | null;
  connection: { stream: Socket };
}

function giveUp(client: PoolClient): void {
  const { host, port, processID, secretKey, connection } = client as PoolClient & Internals;
  connection.stream.destroy();
  if (processID === null || secretKey === null) return;

  // PostgreSQL's CancelRequest: length, code, process, secret; no answer comes back.
  const request = Buffer.alloc(16);
  request.writeInt32BE(16, 0);
  request.writeInt32BE(80_877_102, 4);
  request.writeInt32BE(processID, 8);
  request.writeInt32BE(secretKey, 12);
  const socket = host.startsWith('/')
    ? createConnection(`${host}/.s.PGSQL.${port}`)
    : createConnection(port, host);
  socket.on('error', () => undefined);
  socket.end(request);
  socket.setTimeout(CONNECT_MS, () => socket.destroy());
}

/** One sentence for each way in which a connection fails. */
export function explainConnectionFault(error: unknown, url: string): string {
  const { hostname, port, pathname, username } = new URL(url);
  const place = `${hostname || 'localhost'}:${port || 5432}`;
  const code = errorCode(error);
  if (code === 'ECONNREFUSED') return `No PostgreSQL answers at ${place} (connection refused).`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return `The host of the database, ${hostname}, is not known to the name service.`;
  }
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH') {
    return `PostgreSQL at ${place} cannot be reached.`;
  }
  if (code === '28P01' || code === '28000') {
    return `PostgreSQL at ${place} does not let user "${decodeURIComponent(username)}" in (wrong user, password or pg_hba.conf).`;
  }
  if (code === '3D000') {
    return `PostgreSQL at ${place} has no database "${decodeURIComponent(pathname.slice(1))}".`;
  }
  if (error instanceof Error && /timeout/i.test(error.message)) {
    return `PostgreSQL at ${place} did not answer in time.`;
  }
  return `PostgreSQL at ${place} cannot be used: ${error instanceof Error ? error.message : 'unknown error'}.`;
}

function errorCode(error: unknown): string | undefined {
  if (error instanceof AggregateError) return errorCode(error.errors[0]);
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
