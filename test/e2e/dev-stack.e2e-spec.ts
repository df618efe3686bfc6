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
const ADA = { email: 'ada@example.com', password: 'correct horse battery', name: 'Ada' };

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gatehouse-dev-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('the embedded PostgreSQL', () => {
  let dataDir: string;
  let postgres: Postgres;

  beforeAll(async () => {
    dataDir = join(folder, 'postgres');
    postgres = await startPostgres({ dataDir, settings: FAST });
  });

  afterAll(() => postgres.stop());

  it('keeps its port and what it was given when it is started again', async () => {
    const { port } = postgres;
    await postgres.createDatabase('kept');
    await postgres.stop();

    postgres = await startPostgres({ dataDir, settings: FAST });

    expect(postgres.port).toBe(port);
    expect(await answerOf(postgres.url('kept'), 'SELECT 1')).toBe(1);
  });

  it('takes over from a server that a killed stack left running', async () => {
    const left = postgres;

    postgres = await startPostgres({ dataDir, settings: FAST });

    await left.ended;
    expect(postgres.pid).not.toBe(left.pid);
    expect(await answerOf(postgres.url('postgres'), 'SELECT 1')).toBe(1);
  });

  it('starts again after a kill -9 of the postmaster', async () => {
    process.kill(postgres.pid, 'SIGKILL');
    await postgres.ended;

    postgres = await startPostgres({ dataDir, settings: FAST });

    expect(await answerOf(postgres.url('postgres'), 'SELECT 1')).toBe(1);
  });

  it('is not misled by a process that was given the number of the killed postmaster', async () => {
    await postgres.stop();
    await writeFile(join(dataDir, 'postmaster.pid'), `${process.pid}\n${dataDir}\n`);

    postgres = await startPostgres({ dataDir, settings: FAST });

    expect(postgres.pid).not.toBe(process.pid);
  });

  it('runs beside another with its own folder', async () => {
    const other = await startPostgres({ dataDir: join(folder, 'other'), settings: FAST });
    try {
      expect(other.port).not.toBe(postgres.port);
      expect(await answerOf(other.url('postgres'), 'SELECT 1')).toBe(1);
      expect(await answerOf(postgres.url('postgres'), 'SELECT 1')).toBe(1);
    } finally {
      await other.stop();
    }
  });

  it('clones a database from a template', async () => {
    await postgres.createDatabase('template');
    await answerOf(postgres.url('template'), 'CREATE TABLE made AS SELECT 7 AS it');
    await postgres.createDatabase('clone "1"', 'template');
    expect(await answerOf(postgres.url('clone "1"'), 'SELECT it FROM made')).toBe(7);

    await postgres.dropDatabase('clone "1"');
    await expect(answerOf(postgres.url('clone "1"'), 'SELECT 1')).rejects.toThrow('does not exist');
  });

  it('finds letters beyond ASCII, in any case', async () => {
    const sql = `CREATE EXTENSION IF NOT EXISTS pg_trgm; SELECT lower('ÖMER') || similarity('ömer', 'Ömer')`;
    expect(await answerOf(postgres.url('postgres'), sql)).toBe('ömer1');
  });

  it('asks for the password of its data folder', async () => {
    const open = postgres.url('postgres').replace(/:[0-9a-f]+@/, ':guessed@');
    await expect(answerOf(open, 'SELECT 1')).rejects.toThrow('password authentication failed');
  });

  it('names the port that is in use', async () => {
    const port = await findFreePort();
    const squatter = createServer().listen(port, '127.0.0.1');
    await once(squatter, 'listening');
    try {
      await expect(startPostgres({ dataDir: join(folder, 'late'), port })).rejects.toThrow(
        new RegExp(`^Port ${port}, meant for PostgreSQL, is in use`),
      );
    } finally {
      squatter.close();
    }
  });

  it('says in one sentence that a folder is not one of its own', async () => {
    const broken = join(folder, 'broken');
    await writeInside(join(broken, 'holiday.txt'), 'not a database');
    await expect(startPostgres({ dataDir: broken })).rejects.toThrow(/^.*it has no PG_VERSION.*$/);
  });

  it('says in one sentence that a folder is of another version', async () => {
    const old = join(folder, 'old');
    await writeInside(join(old, 'PG_VERSION'), '15\n');
    await expect(startPostgres({ dataDir: old })).rejects.toThrow(
      /^.* was made by PostgreSQL 15.*$/,
    );
  });

  it('says in one sentence why it does not start', async () => {
    const options = { dataDir: join(folder, 'misled'), settings: { shared_buffers: 'plenty' } };
    await expect(startPostgres(options)).rejects.toThrow(
      /^PostgreSQL did not start on .*plenty.*$/,
    );
  });
});

describe('Better-Auth', () => {
  let postgres: Postgres;

  beforeAll(async () => {
    postgres = await startPostgres({ dataDir: join(folder, 'auth'), settings: FAST });
  });

  afterAll(() => postgres.stop());

  it.each(['text', 'uuid', 'serial'] as const)(
    'signs people up and in, with %s ids in the tables it made',
    async (idType) => {
      await postgres.createDatabase(idType);
      const databaseUrl = postgres.url(idType);
      await withBetterAuth({ databaseUrl, idType, migrate: true }, async (auth) => {
        const { user } = await auth.signUp(ADA);
        const { sessionToken } = await auth.signIn(ADA);
        const claims = claimsOf(await auth.tokenFor(sessionToken));
        expect(claims).toMatchObject({ sub: user.id, iss: auth.origin, aud: auth.origin });
        expect(claims).not.toHaveProperty('sid');
      });
    },
  );

  it('names the session in its tokens where it is told to, and survives a restart', async () => {
    await postgres.createDatabase('sid');
    const options = { databaseUrl: postgres.url('sid'), sid: true, migrate: true };
    await withBetterAuth(options, async (auth) => {
      const { sessionToken } = await auth.signUp(ADA);
      const { port } = auth;
      await auth.restart();
      expect(auth.port).toBe(port);
      const { sid } = claimsOf(await auth.tokenFor(sessionToken));
      expect(await answerOf(options.databaseUrl, 'SELECT id FROM session')).toBe(sid);
    });
  });

  it('keeps its tables in another schema, under snake_case and plural names', async () => {
    await postgres.createDatabase('named');
    const databaseUrl = postgres.url('named');
    const names = { schema: 'the auth', columns: 'snake', plural: true } as const;
    await withBetterAuth({ databaseUrl, ...names, migrate: true }, async (auth) => {
      await auth.signUp(ADA);
      await auth.tokenFor((await auth.signIn(ADA)).sessionToken);
    });
    const sql = 'SELECT email_verified FROM "the auth".users';
    expect(await answerOf(databaseUrl, sql)).toBe(false);
  });

  it('does not start on tables that are not there', async () => {
    await postgres.createDatabase('empty');
    const starting = startBetterAuth({ databaseUrl: postgres.url('empty') });
    await expect(starting).rejects.toThrow('Missing tables');
  });
});

const corsOf = ({ headers }: Response) => ({
  origin: headers.get('access-control-allow-origin'),
  credentials: headers.get('access-control-allow-credentials'),
});

// The API itself has tests of its own: here a stand-in takes its place.
describe('npm start', () => {
  let home: string;
  let ports: { PORT: string; BETTER_AUTH_PORT: string };
  const started: ChildProcess[] = [];

  beforeAll(async () => {
    home = join(folder, 'checkout');
    await writeInside(join(home, 'package.json'), '{ "type": "module" }');
    await writeInside(join(home, 'dist/src/cli/migrate.js'), '');
    await writeInside(join(home, 'dist/src/main.js'), STAND_IN);
    ports = await twoFreePorts();
  });

  afterEach(async () => {
    await Promise.all(started.splice(0).map(endGently));
  });

  it('keeps its users through a kill -9', async () => {
    const first = start(ports);
    await first.says('Gatehouse is ready');
    const before = await demoUserId(ports.BETTER_AUTH_PORT);
    await first.end('SIGKILL');

    const second = start(ports);
    await second.says('Gatehouse is ready');

    expect(await demoUserId(ports.BETTER_AUTH_PORT)).toBe(before);
    expect(await second.end('SIGTERM')).toBe(0);
  });

  it.each(['in the shell', 'in .env'])(
    'lets pages of CORS_ORIGINS (%s) and of Swagger UI use Better-Auth with cookies',
    async (where) => {
      const CORS_ORIGINS = 'http://localhost:5173, http://127.0.0.1:4173';
      await writeInside(
        join(home, '.env'),
        where === 'in .env' ? `CORS_ORIGINS=${CORS_ORIGINS}` : '',
      );
      const stack = start({ ...ports, ...(where === 'in .env' ? {} : { CORS_ORIGINS }) });
      await stack.says(
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
      const stranger = await signIn('http://localhost:5174');
      expect([stranger.status, corsOf(stranger)]).toEqual([
        403,
        { origin: null, credentials: null },
      ]);
      expect(await stack.end('SIGTERM')).toBe(0);
    },
  );

  it('runs beside another, and not twice on one folder', async () => {
    const first = start(ports);
    await first.says('Gatehouse is ready');

    const same = start({ ...(await twoFreePorts()) });
    await same.says('already runs on');
    expect(await same.ended).toBe(1);

    const other = start({ ...(await twoFreePorts()), DATA_DIR: '.other' });
    await other.says('Gatehouse is ready');
    expect(await other.end('SIGINT')).toBe(0);
    expect(await first.end('SIGINT')).toBe(0);
  });

  it('names the port that is in use and the variable to change, before it starts anything', async () => {
    const squatter = createServer().listen(Number(ports.BETTER_AUTH_PORT), '127.0.0.1');
    await once(squatter, 'listening');
    try {
      const late = start({ ...ports, DATA_DIR: '.late' });
      await late.says(`Port ${ports.BETTER_AUTH_PORT} is in use: set BETTER_AUTH_PORT to another.`);
      expect(await late.ended).toBe(1);
      await expect(readFile(join(home, '.late/postgres/PG_VERSION'))).rejects.toThrow('ENOENT');
    } finally {
      squatter.close();
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

const STAND_IN = `
  import { createServer } from 'node:http';
  createServer((_, response) => response.end('{}')).listen(process.env.PORT, process.env.HOST);
  process.on('SIGTERM', () => process.exit(0));
`;

class Stack {
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcess;
  #said = '';

  constructor(child: ChildProcess) {
    this.#child = child;
    this.ended = new Promise((whenEnded) => child.once('exit', whenEnded));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (text: Buffer) => (this.#said += text.toString()));
    }
  }

  async says(words: string): Promise<void> {
    const deadline = Date.now() + 20_000;
    while (!this.#said.includes(words)) {
      if (Date.now() > deadline) throw new Error(`"${words}" was not said, but: ${this.#said}`);
      await new Promise((later) => setTimeout(later, 20));
    }
  }

  end(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    return this.ended;
  }
}

async function endGently(child: ChildProcess): Promise<void> {
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

async function answerOf(url: string, sql: string): Promise<unknown> {
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
    // Node's fetch calls itself a browser, and of browsers Better-Auth expects an origin.
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
