import type { Server } from 'node:http';
import { Client } from 'pg';
import { recordOutput } from './output-recorder.ts';

/**
 * Keeps all responses and the log of Gatehouse in a test file, and searches them for secrets after
 * the last test. A file that starts Gatehouse fails if one is found. It is inactive outside Jest.
 */
export const isLeakDetectorActive = 'afterAll' in globalThis;

if (isLeakDetectorActive) {
  afterAll(async () => {
    const leaks = await findLeaks();
    if (leaks.length > 0) throw new Error(`Gatehouse leaked secrets:\n${leaks.join('\n')}`);
  });
}

/** By what it is, what must not be said. */
const secrets = new Map<string, string>();
const databases = new Set<string>();
const sources: { where: string; take: () => string }[] = [];

export function registerSecret(what: string, secret: string): void {
  // Anything shorter is found where nobody put it.
  if (isLeakDetectorActive && secret.length >= 8) secrets.set(secret, what);
}

/** Whose secrets must not be said: the password for it, and what is in it at the end. */
export function registerDatabase(databaseUrl: string): void {
  registerSecret('the password of DATABASE_URL', URL.parse(databaseUrl)?.password ?? '');
  databases.add(databaseUrl);
}

/** Registers each part of the JWT in an `Authorization` header. */
export function registerToken(authorization: string): void {
  const parts = authorization.replace(/^bearer +/i, '').split('.');
  if (parts.length !== 3) return;
  for (const [i, part] of parts.entries()) {
    if (part.length >= 24) registerSecret(`part ${i + 1} of a JWT`, part.slice(0, 24));
  }
}

/** `take` gives what was said since it was last called. */
export function addOutputSource(where: string, take: () => string): void {
  if (isLeakDetectorActive) sources.push({ where, take });
}

/** Keeps what an application in this process answers. */
export function recordServer(server: Server): void {
  const answers: string[] = [];
  addOutputSource('a response', () => answers.splice(0).join(''));
  server.on('connection', (socket) => recordOutput(socket, (text) => void answers.push(text)));
  server.prependListener('request', ({ headers }) => registerToken(headers.authorization ?? ''));
}

/** Returns the secrets in the output since the last call. */
export async function findLeaks(): Promise<string[]> {
  for (const url of databases) await registerSecretsIn(url);
  // Reads all sources first, because reading a recording also registers the tokens in it.
  const texts = sources.map(({ where, take }) => ({ where, text: take() }));
  return texts.flatMap(({ where, text }) =>
    [...secrets].flatMap(([secret, what]) => {
      const at = text.indexOf(secret);
      return at < 0 ? [] : [`${what} in ${where}, after ${text.slice(Math.max(0, at - 80), at)}`];
    }),
  );
}

const SECRET_COLUMN = '^(token|password|(access|refresh|id)_?token|private_?key)$';

async function registerSecretsIn(url: string): Promise<void> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch {
    return; // The test dropped its database. The secrets of its users are registered already.
  }
  try {
    const { rows } = await client.query<{ what: string; query: string }>(
      `select table_name || '.' || column_name as what,
        format('select distinct %I as secret from %I.%I where %1$I is not null',
          column_name, table_schema, table_name) as query
       from information_schema.columns
       where table_schema not in ('pg_catalog', 'information_schema') and column_name ~* $1`,
      [SECRET_COLUMN],
    );
    for (const { what, query } of rows) {
      const found = await client.query<{ secret: string }>(query);
      for (const { secret } of found.rows) registerSecret(what, secret);
    }
  } finally {
    await client.end();
  }
}
