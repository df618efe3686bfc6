import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Client } from 'pg';
import { startBetterAuth, type BetterAuth } from '../../tools/better-auth.ts';
import { findFreePort } from '../../tools/ports.ts';
import { startPostgres, type Postgres } from '../../tools/postgres.ts';

const FAST = { fsync: 'off' };
const USER = { email: 'ada@example.com', password: 'correct horse battery', name: 'Ada' };

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gatehouse-dev-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('embedded PostgreSQL', () => {
  let dataDir: string;
  let postgres: Postgres;

  beforeAll(async () => {
    dataDir = join(folder, 'postgres');
    postgres = await startPostgres({ dataDir, settings: FAST });
  });

  afterAll(() => postgres.stop());

  it('keeps its port and its data after a restart', async () => {
    const { port } = postgres;
    await postgres.createDatabase('kept');
    await postgres.stop();

    postgres = await startPostgres({ dataDir, settings: FAST });

    expect(postgres.port).toBe(port);
    expect(await queryValue(postgres.url('kept'), 'SELECT 1')).toBe(1);
  });

  it('replaces a server that a killed stack left running', async () => {
    const left = postgres;

    postgres = await startPostgres({ dataDir, settings: FAST });

    await left.ended;
    expect(postgres.pid).not.toBe(left.pid);
    expect(await queryValue(postgres.url('postgres'), 'SELECT 1')).toBe(1);
  });

  it('starts again after a kill -9 of the postmaster', async () => {
    process.kill(postgres.pid, 'SIGKILL');
    await postgres.ended;

    postgres = await startPostgres({ dataDir, settings: FAST });

    expect(await queryValue(postgres.url('postgres'), 'SELECT 1')).toBe(1);
  });

  it('starts although another process has the id of the killed postmaster', async () => {
    await postgres.stop();
    const other = spawn('sleep', ['60']);
    await writeFile(join(dataDir, 'postmaster.pid'), `${other.pid}\n${dataDir}\n`);

    postgres = await startPostgres({ dataDir, settings: FAST });

    expect(other.signalCode).toBeNull();
    other.kill();
  });

  it('runs beside a second server with another folder', async () => {
    const other = await startPostgres({ dataDir: join(folder, 'other'), settings: FAST });
    try {
      expect(other.port).not.toBe(postgres.port);
      expect(await queryValue(other.url('postgres'), 'SELECT 1')).toBe(1);
      expect(await queryValue(postgres.url('postgres'), 'SELECT 1')).toBe(1);
    } finally {
      await other.stop();
    }
  });

  it('clones a database from a template', async () => {
    await postgres.createDatabase('template');
    await queryValue(postgres.url('template'), 'CREATE TABLE made AS SELECT 7 AS it');
    await postgres.createDatabase('clone "1"', 'template');
    expect(await queryValue(postgres.url('clone "1"'), 'SELECT it FROM made')).toBe(7);

    await postgres.dropDatabase('clone "1"');
    await expect(queryValue(postgres.url('clone "1"'), 'SELECT 1')).rejects.toThrow(
      'does not exist',
    );
  });

  it('matches letters beyond ASCII without regard to case', async () => {
    const sql = `CREATE EXTENSION IF NOT EXISTS pg_trgm; SELECT lower('ÖMER') || similarity('ömer', 'Ömer')`;
    expect(await queryValue(postgres.url('postgres'), sql)).toBe('ömer1');
  });

  it('refuses a wrong password', async () => {
    const wrong = postgres.url('postgres').replace(/:[0-9a-f]+@/, ':guessed@');
    await expect(queryValue(wrong, 'SELECT 1')).rejects.toThrow('password authentication failed');
  });

  it('reports the port that is in use', async () => {
    const port = await findFreePort();
    const blocker = createServer().listen(port, '127.0.0.1');
    await once(blocker, 'listening');
    try {
      await expect(startPostgres({ dataDir: join(folder, 'late'), port })).rejects.toThrow(
        new RegExp(`^Port ${port}, meant for PostgreSQL, is in use`),
      );
    } finally {
      blocker.close();
    }
  });

  it('refuses a foreign folder in one sentence', async () => {
    const broken = join(folder, 'broken');
    await writeInside(join(broken, 'holiday.txt'), 'not a database');
    await expect(startPostgres({ dataDir: broken })).rejects.toThrow(/^.*it has no PG_VERSION.*$/);
  });

  it('refuses a folder of another PostgreSQL version in one sentence', async () => {
    const old = join(folder, 'old');
    await writeInside(join(old, 'PG_VERSION'), '15\n');
    await expect(startPostgres({ dataDir: old })).rejects.toThrow(
      /^.* was created by PostgreSQL 15.*$/,
    );
  });

  it('reports in one sentence why it did not start', async () => {
    const options = { dataDir: join(folder, 'invalid'), settings: { shared_buffers: 'plenty' } };
    await expect(startPostgres(options)).rejects.toThrow(
      /^PostgreSQL did not start on .*plenty.*$/,
    );
  });
});

describe('Better-Auth server of the tests', () => {
  let postgres: Postgres;

  beforeAll(async () => {
    postgres = await startPostgres({ dataDir: join(folder, 'auth'), settings: FAST });
  });

  afterAll(() => postgres.stop());

  it.each(['text', 'uuid', 'serial'] as const)(
    'signs users up and in with %s ids in the tables that it created',
    async (idType) => {
      await postgres.createDatabase(idType);
      const databaseUrl = postgres.url(idType);
      await withBetterAuth({ databaseUrl, idType, migrate: true }, async (auth) => {
        const { user } = await auth.signUp(USER);
        const { sessionToken } = await auth.signIn(USER);
        const claims = claimsOf(await auth.tokenFor(sessionToken));
        expect(claims).toMatchObject({ sub: user.id, iss: auth.origin, aud: auth.origin });
        expect(claims).not.toHaveProperty('sid');
      });
    },
  );

  it('adds the session id to its tokens if configured, also after a restart', async () => {
    await postgres.createDatabase('sid');
    const options = { databaseUrl: postgres.url('sid'), sid: true, migrate: true };
    await withBetterAuth(options, async (auth) => {
      const { sessionToken } = await auth.signUp(USER);
      const { port } = auth;
      await auth.restart();
      expect(auth.port).toBe(port);
      const { sid } = claimsOf(await auth.tokenFor(sessionToken));
      expect(await queryValue(options.databaseUrl, 'SELECT id FROM session')).toBe(sid);
    });
  });

  it('keeps its tables in another schema with snake_case and plural names', async () => {
    await postgres.createDatabase('named');
    const databaseUrl = postgres.url('named');
    const names = { schema: 'the auth', columns: 'snake', plural: true } as const;
    await withBetterAuth({ databaseUrl, ...names, migrate: true }, async (auth) => {
      await auth.signUp(USER);
      await auth.tokenFor((await auth.signIn(USER)).sessionToken);
    });
    const sql = 'SELECT email_verified FROM "the auth".users';
    expect(await queryValue(databaseUrl, sql)).toBe(false);
  });

  it('does not start without its tables', async () => {
    await postgres.createDatabase('empty');
    const starting = startBetterAuth({ databaseUrl: postgres.url('empty') });
    await expect(starting).rejects.toThrow('Missing tables');
  });
});

const corsOf = ({ headers }: Response) => ({
  origin: headers.get('access-control-allow-origin'),
  credentials: headers.get('access-control-allow-credentials'),
});

// Other tests cover the API. Here a small HTTP server replaces it.
describe('npm start', () => {
  let home: string;
  let ports: { PORT: string; BETTER_AUTH_PORT: string };
  const started: ChildProcess[] = [];

  beforeAll(async () => {
    home = join(folder, 'checkout');
    await writeInside(join(home, 'package.json'), '{ "type": "module" }');
    await writeInside(join(home, 'dist/src/cli/migrate.js'), '');
    await writeInside(join(home, 'dist/src/main.js'), FAKE_API);
    ports = await twoFreePorts();
  });

  afterEach(async () => {
    await Promise.all(started.splice(0).map(stopGracefully));
  });

  it('keeps its users after a kill -9', async () => {
    const first = start(ports);
    await first.waitForOutput('Gatehouse is ready');
    const before = await demoUserId(ports.BETTER_AUTH_PORT);
    await first.end('SIGKILL');

    const second = start(ports);
    await second.waitForOutput('Gatehouse is ready');

    expect(await demoUserId(ports.BETTER_AUTH_PORT)).toBe(before);
    expect(await second.end('SIGTERM')).toBe(0);
  });

  it.each(['in the shell', 'in .env'])(
    'allows pages of CORS_ORIGINS (%s) and of Swagger UI to use Better-Auth with cookies',
    async (where) => {
      const CORS_ORIGINS = 'http://localhost:5173, http://127.0.0.1:4173';
      await writeInside(
        join(home, '.env'),
        where === 'in .env' ? `CORS_ORIGINS=${CORS_ORIGINS}` : '',
      );
      const stack = start({ ...ports, ...(where === 'in .env' ? {} : { CORS_ORIGINS }) });
      await stack.waitForOutput(
        `http://localhost:${ports.PORT}/api/v1 and http://localhost:${ports.BETTER_AUTH_PORT}/api/auth`,
      );
      const url = `http://127.0.0.1:${ports.BETTER_AUTH_PORT}/api/auth`;
      const signIn = (origin: string) =>
        fetch(`${url}/sign-in/email`, {
          method: 'POST',
          headers: { origin, 'content-type': 'application/json', cookie: 'a=b' },
          body: JSON.stringify({ email: 'user@example.com', password: 'demo-user-password' }),
        });
      for (const origin of ['http://localhost:5173', `http://localhost:${ports.PORT}`]) {
        const allowed = { origin, credentials: 'true' };
        const preflight = await fetch(`${url}/token`, { method: 'OPTIONS', headers: { origin } });
        expect([preflight.status, corsOf(preflight)]).toEqual([204, allowed]);
        expect(preflight.headers.get('access-control-allow-headers')).toContain('Content-Type');
        const signedIn = await signIn(origin);
        expect([signedIn.status, corsOf(signedIn)]).toEqual([200, allowed]);
      }
      const unlisted = await signIn('http://localhost:5174');
      expect([unlisted.status, corsOf(unlisted)]).toEqual([
        403,
        { origin: null, credentials: null },
      ]);
      expect(await stack.end('SIGTERM')).toBe(0);
    },
  );

  it('runs beside a second stack, and refuses to run twice on one folder', async () => {
    const first = start(ports);
    await first.waitForOutput('Gatehouse is ready');

    const same = start({ ...(await twoFreePorts()) });
    await same.waitForOutput('already runs on');
    expect(await same.ended).toBe(1);

    const other = start({ ...(await twoFreePorts()), DATA_DIR: '.other' });
    await other.waitForOutput('Gatehouse is ready');
    expect(await other.end('SIGINT')).toBe(0);
    expect(await first.end('SIGINT')).toBe(0);
  });

  it('reports the port in use and its variable before it starts anything', async () => {
    const blocker = createServer().listen(Number(ports.BETTER_AUTH_PORT), '127.0.0.1');
    await once(blocker, 'listening');
    try {
      const late = start({ ...ports, DATA_DIR: '.late' });
      await late.waitForOutput(
        `Port ${ports.BETTER_AUTH_PORT} is in use: set BETTER_AUTH_PORT to another.`,
      );
      expect(await late.ended).toBe(1);
      await expect(readFile(join(home, '.late/postgres/PG_VERSION'))).rejects.toThrow('ENOENT');
    } finally {
      blocker.close();
    }
  });

  function start(variables: Record<string, string>): Stack {
    const { DATABASE_URL: _, BETTER_AUTH_URL: __, ...environment } = process.env;
    const child = spawn(process.execPath, [resolve('tools/start.ts')], {
      cwd: home,
      env: { ...environment, ...variables },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    started.push(child);
    return new Stack(child);
  }
});

const FAKE_API = `
  import { createServer } from 'node:http';
  createServer((_, response) => response.end('{}')).listen(process.env.PORT, process.env.HOST);
  process.on('SIGTERM', () => process.exit(0));
`;

class Stack {
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcess;
  #output = '';

  constructor(child: ChildProcess) {
    this.#child = child;
    this.ended = new Promise((done) => child.once('exit', done));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => (this.#output += chunk.toString()));
    }
  }

  async waitForOutput(text: string): Promise<void> {
    const deadline = Date.now() + 20_000;
    while (!this.#output.includes(text)) {
      if (Date.now() > deadline)
        throw new Error(`"${text}" is missing in the output: ${this.#output}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  end(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    return this.ended;
  }
}

async function stopGracefully(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}

async function withBetterAuth(
  options: Parameters<typeof startBetterAuth>[0],
  use: (auth: BetterAuth) => Promise<void>,
): Promise<void> {
  const auth = await startBetterAuth(options);
  try {
    await use(auth);
  } finally {
    await auth.stop();
  }
}

async function queryValue(url: string, sql: string): Promise<unknown> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    const results = [await client.query({ text: sql, rowMode: 'array' })].flat();
    return results.at(-1)?.rows[0]?.[0];
  } finally {
    await client.end();
  }
}

function claimsOf(token: string): Record<string, unknown> {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
}

async function demoUserId(betterAuthPort: string): Promise<unknown> {
  const origin = `http://127.0.0.1:${betterAuthPort}`;
  const response = await fetch(`${origin}/api/auth/sign-in/email`, {
    method: 'POST',
    // Node's fetch sends a browser's headers, and Better-Auth requires an origin from browsers.
    headers: { origin, 'content-type': 'application/json' },
    body: JSON.stringify({ email: 'user@example.com', password: 'demo-user-password' }),
  });
  expect(response.status).toBe(200);
  const { user } = JSON.parse(await response.text());
  return user.id;
}

async function twoFreePorts(): Promise<{ PORT: string; BETTER_AUTH_PORT: string }> {
  const first = await findFreePort();
  const second = await findFreePort();
  if (first === second) return twoFreePorts();
  return { PORT: String(first), BETTER_AUTH_PORT: String(second) };
}

async function writeInside(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}
