import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { devNull, tmpdir } from 'node:os';
import { join } from 'node:path';

import { Client } from 'pg';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { type Postgres, startPostgres } from '../../tools/postgres.ts';
import { startProcess, type AppProcess } from '../support/app-process.ts';
import { pin, SERVER_CORES } from './load.ts';
import { migrate } from './seed.ts';

/** A real PostgreSQL, a Better-Auth in production mode, and the production build of Gatehouse. */
export interface BenchEnv {
  postgres: Postgres;
  databaseUrl: string;
  auth: BetterAuth;
  users: BenchUser[];
  sql: Client;
  /** Starts a replica on the core of the measured server, with its log discarded. */
  serve: (variables?: Record<string, string>) => Promise<AppProcess>;
  /** Creates a unique token as Better-Auth does, signed with a key that it publishes. */
  token: (user: BenchUser) => string;
}

export interface BenchUser {
  id: string;
  sessionId: string;
  /** Better-Auth's own credential. */
  session: string;
}

export async function withBenchEnv<Result>(
  userCount: number,
  work: (env: BenchEnv) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'gatehouse-bench-'));
  const log = openSync(devNull, 'w');
  const ending: (() => Promise<unknown>)[] = [];
  try {
    const postgres = await startPostgres({
      dataDir: join(folder, 'postgres'),
      settings: { max_connections: '200', synchronous_commit: 'off' },
    });
    ending.push(() => postgres.stop());
    await postgres.createDatabase('bench');
    const databaseUrl = postgres.url('bench');
    await migrate(databaseUrl);

    const sql = new Client({ connectionString: databaseUrl });
    await sql.connect();
    ending.push(() => sql.end());
    const auth = await startBetterAuth({ databaseUrl, sid: true, nodeEnv: 'production' });
    ending.push(() => auth.stop());
    await pin(auth.pid, SERVER_CORES);
    // Better-Auth creates its key with its first token, and signs with the newest key.
    const first = { email: 'first@bench.example', password: 'a long password', name: 'First' };
    await auth.tokenFor((await auth.signUp(first)).sessionToken);
    const key = await publishKey(sql);
    const users = await makeUsers(sql, userCount);
    return await work({
      postgres,
      databaseUrl,
      auth,
      users,
      sql,
      token: (user) => makeToken(key, auth.origin, user),
      serve: async (variables = {}) => {
        const served = await startProcess(
          { DATABASE_URL: databaseUrl, BETTER_AUTH_URL: auth.origin, ...variables },
          { output: log },
        );
        ending.push(() => served.end('SIGINT'));
        await pin(served.child.pid, SERVER_CORES);
        return served;
      },
    });
  } finally {
    for (const end of ending.toReversed()) await end().catch(() => undefined);
    closeSync(log);
    await rm(folder, { recursive: true, force: true });
  }
}

interface SigningKey {
  id: string;
  key: KeyObject;
}

/** Adds a signing key, because Better-Auth itself would take minutes to sign enough tokens. */
async function publishKey(sql: Client): Promise<SigningKey> {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const id = randomBytes(8).toString('hex');
  const jwk = JSON.stringify(publicKey.export({ format: 'jwk' }));
  await sql.query(
    `insert into jwks (id, "publicKey", "privateKey", "createdAt") values ($1, $2, '', now() - interval '1 day')`,
    [id, jwk],
  );
  return { id, key: privateKey };
}

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');

let made = 0;

function makeToken({ id: kid, key }: SigningKey, origin: string, user: BenchUser): string {
  const now = Math.floor(Date.now() / 1000);
  made += 1;
  const claims = {
    id: user.id,
    sub: user.id,
    sid: user.sessionId,
    iat: now,
    exp: now + 3600,
    iss: origin,
    aud: origin,
    jti: String(made),
  };
  const input = `${part({ alg: 'EdDSA', kid })}.${part(claims)}`;
  return `${input}.${sign(null, Buffer.from(input), key).toString('base64url')}`;
}

async function makeUsers(sql: Client, count: number): Promise<BenchUser[]> {
  await sql.query(
    `insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role)
     select 'bench-' || n, 'User ' || n, 'user' || n || '@bench.example', true, now(), now(), 'user'
     from generate_series(1, $1) n`,
    [count],
  );
  await sql.query(
    `insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt", "ipAddress", "userAgent")
     select 'session-' || n, 'token-' || n || '-' || md5(n::text), 'bench-' || n,
       now() + interval '7 days', now(), now(), '203.0.113.7', 'bench'
     from generate_series(1, $1) n`,
    [count],
  );
  await sql.query('analyze');
  const { rows } = await sql.query<BenchUser>(
    `select "userId" as id, id as "sessionId", token as session from session where id like 'session-%' order by length(id), id`,
  );
  return rows;
}
