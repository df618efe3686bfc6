import { spawnSync } from 'node:child_process';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';
import {
  killProcesses,
  type KeySet,
  startProcess,
  startKeySet,
  until,
} from '../support/app-process.js';

let database: TestDatabase;
let issuer: KeySet;
let variables: Record<string, string>;

beforeAll(async () => {
  database = await createDatabase();
  issuer = await startKeySet();
  variables = { DATABASE_URL: database.url, BETTER_AUTH_URL: issuer.url, SHUTDOWN_DELAY_MS: '0' };
});

afterAll(async () => {
  killProcesses();
  issuer.close();
  await database.drop();
});

const startToFail = async (changes: Record<string, string>, port?: number) => {
  const served = await startProcess(
    { ...variables, ...changes },
    { skipReadyCheck: true, ...(port === undefined ? {} : { port }) },
  );
  const { code } = await served.end();
  expect(code).toBe(1);
  expect(served.output.stdout + served.output.stderr).not.toMatch(/\n\s+at /);
  return served.output.stderr;
};

describe('failed start', () => {
  it('exits with 1 and one sentence when the port is in use', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    expect(await startToFail({}, port)).toBe(
      `Cannot listen on 127.0.0.1:${port}: the port is in use. Change HOST or PORT.\n`,
    );
    expect(await startToFail({ METRICS_PORT: String(port) })).toBe(
      `Cannot listen on 127.0.0.1:${port}: the port is in use. Change HOST or METRICS_PORT.\n`,
    );
    other.close();
  });

  it('exits with 1 and one sentence when HOST is not an address of this machine', async () => {
    expect(await startToFail({ HOST: '192.0.2.1' })).toMatch(
      /^Cannot listen on 192\.0\.2\.1:\d+: this machine has no such address\. .*\n$/,
    );
  });

  it('exits with 1 and one sentence when the database is unavailable', async () => {
    expect(await startToFail({ DATABASE_URL: 'postgres://u:s3cr3t@127.0.0.1:9/x' })).toBe(
      'PostgreSQL is not reachable at 127.0.0.1:9 (connection refused).\n',
    );
  });

  it('exits with 1 and lists every invalid environment variable', async () => {
    expect(await startToFail({ DATABASE_URL: 's3cr3t', LOG_LEVEL: 'loud' })).toMatch(
      /^The environment is not usable:\n {2}- .*DATABASE_URL.*\n {2}- .*LOG_LEVEL.*\n$/,
    );
  });
});

it('starts without a warning where it cannot write its compile cache', async () => {
  const served = await startProcess({
    ...variables,
    NODE_COMPILE_CACHE: 'package.json/compile-cache',
  });
  expect(await served.end('SIGTERM')).toMatchObject({ code: 0 });
  expect(served.output.stderr).toBe('');
  expect(served.lines().filter(({ level }) => level !== 'info')).toEqual([]);
});

it('runs in production with npm run start:prod even without NODE_ENV', () => {
  for (const nodeEnv of [{}, { NODE_ENV: '' }, { NODE_ENV: 'development' }]) {
    const { status, stderr } = spawnSync('npm', ['run', '--silent', 'start:prod'], {
      env: { PATH: process.env['PATH'], ...nodeEnv },
      encoding: 'utf8',
      timeout: 20_000,
    });
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr:
        'The environment is not usable:\n  - DATABASE_URL is required in production\n  - BETTER_AUTH_URL is required in production\n',
    });
  }
});

const warningsOf = async (changes: Record<string, string>) => {
  const served = await startProcess({ ...variables, ...changes });
  const lines = served.lines().filter(({ level }) => level === 'warn');
  await served.end('SIGTERM');
  const doctor = await runBuilt('src/cli/doctor.js', { ...variables, ...changes });
  return {
    logged: lines.map(({ event, msg }) => ({ event, msg })),
    doctor: [...doctor.stdout.matchAll(/^warning (.*)$/gm)].map(([, message]) => message),
  };
};

const withClock = (milliseconds: number) => ({
  NODE_OPTIONS: `--import data:text/javascript,const{now}=Date;Date.now=()=>now()+(${milliseconds})`,
});

const addUsers = (number: number, createdAt: string) =>
  database.sql(`insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
      select 'n' || n, 'New', 'n' || n || '@example.com', false, ${createdAt}, now()
      from generate_series(1, ${number}) n`);

const expectWarning = async (changes: Record<string, string>, event: string, words: RegExp) => {
  const { logged, doctor } = await warningsOf(changes);
  expect(logged).toEqual([{ event, msg: expect.stringMatching(words) }]);
  expect(doctor).toEqual([expect.stringMatching(words)]);
};

describe('warnings at the start', () => {
  afterEach(() => database.sql('delete from "user"'));

  it('logs no warning for a correct configuration', async () => {
    expect(await warningsOf(withClock(-4500))).toEqual({ logged: [], doctor: [] });
  });

  it('warns about an environment variable that it does not read', () =>
    expectWarning(
      { SESSION_BIND: 'x' },
      'config.unknown-variable',
      /^SESSION_BIND is not .*BINDING\?$/,
    ));

  it.each([
    [-8000, /^The clock of this machine is 8 s behind the clock of the database/],
    [8000, /^The clock of this machine is 8 s ahead of the clock of the database/],
  ])(
    'warns about a clock that differs by %d ms from the clock of the database',
    (milliseconds, words) => expectWarning(withClock(milliseconds), 'database.clock-skew', words),
  );

  it('warns when none of the newest users has a session', async () => {
    await addUsers(5, `now() - interval '1 hour'`);
    await expectWarning(
      {},
      'database.sessions-elsewhere',
      /^None of the 5 newest users has a session/,
    );
  });

  it.each([
    ['one of whom has a session', 5, `now() - interval '1 hour'`, true],
    ['who are few', 4, `now() - interval '1 hour'`, false],
    ['who signed up before yesterday', 5, `now() - interval '25 hours'`, false],
    ['who signed up just now', 5, 'now()', false],
  ])('does not warn about new users %s', async (_who, number, createdAt, withSession) => {
    await addUsers(number, createdAt);
    if (withSession) {
      await database.sql(`insert into session (id, "userId", token, "expiresAt", "updatedAt")
        values ('s', 'n3', 't', now() + interval '1 day', now())`);
    }
    expect(await warningsOf({})).toEqual({ logged: [], doctor: [] });
  });
});

const startWithFault = (code: string) =>
  startProcess({
    ...variables,
    NODE_OPTIONS: `--import data:text/javascript,process.on('SIGUSR2',()=>{${encodeURIComponent(code)}})`,
  });

it('logs a start that fails halfway as JSON without a secret', async () => {
  const noServer = `
    import http from 'node:http';
    import { syncBuiltinESMExports } from 'node:module';
    http.createServer = () => { throw new Error('no server today'); };
    syncBuiltinESMExports();`;
  const served = await startProcess(
    {
      ...variables,
      NODE_ENV: 'test',
      NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(noServer)}`,
    },
    { skipReadyCheck: true },
  );
  expect(await served.end()).toMatchObject({ code: 1 });
  expect(served.output.stderr).toBe('');
  expect(served.lines()).toContainEqual(
    expect.objectContaining({
      level: 'fatal',
      err: expect.objectContaining({ type: 'Error', message: 'no server today' }),
    }),
  );
});

describe('uncaught errors', () => {
  it('logs one line for an uncaught exception and exits with 1', async () => {
    const served = await startWithFault(`throw new Error('oops')`);
    const { code } = await served.end('SIGUSR2');
    expect(code).toBe(1);
    expect(served.output.stderr).toBe('');
    expect(served.lines().slice(-1)).toEqual([
      expect.objectContaining({
        level: 'fatal',
        err: expect.objectContaining({ message: 'oops', stack: expect.any(String) }),
      }),
    ]);
  });

  it('logs one line for an unhandled rejection and continues to serve', async () => {
    const served = await startWithFault(`Promise.reject(new Error('oops'))`);
    served.child.kill('SIGUSR2');
    await until(() => served.lines().some(({ level }) => level === 'error'), true);
    expect((await fetch(`${served.url}/health/db`)).status).toBe(200);
    expect(served.lines().filter(({ level }) => level === 'error')).toEqual([
      expect.objectContaining({ err: expect.objectContaining({ message: 'oops' }) }),
    ]);
    expect(await served.end('SIGTERM')).toMatchObject({ code: 0 });
  });
});
