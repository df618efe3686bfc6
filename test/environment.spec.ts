import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Environment, EnvironmentFault, parseEnvironment } from '../src/config/environment.js';

const NAMES = Object.keys(new Environment());
const PRODUCTION = {
  NODE_ENV: 'production',
  DATABASE_URL: 'postgresql://gate:secret@db/app',
  BETTER_AUTH_URL: 'https://auth.example.com',
};

function faultsOf(variables: Record<string, string>): string[] {
  try {
    parseEnvironment(variables);
  } catch (error) {
    if (error instanceof EnvironmentFault) return error.faults;
    throw error;
  }
  return [];
}

describe('.env.example', () => {
  const lines = readFileSync('.env.example', 'utf8').matchAll(/^(# )?([A-Z_]+)=(.*)$/gm);
  const examples = [...lines].map(([, comment, name = '', value = '']) => ({
    name,
    value,
    setByDefault: !comment,
  }));
  const defaults = new Environment();

  it('names the variables that are read, each once and in the same order', () => {
    expect(examples.map(({ name }) => name)).toEqual(NAMES);
  });

  it.each(examples.filter(({ setByDefault }) => setByDefault))(
    'gives $name its default',
    ({ name, value }) => {
      expect(parseEnvironment({ [name]: value })).toEqual(defaults);
      const meaning = { on: 'true', off: 'false' }[value] ?? value;
      expect(String(Reflect.get(defaults, name))).toBe(meaning);
    },
  );

  it.each(examples.filter(({ setByDefault }) => !setByDefault))(
    'gives $name a value that would do, and no default',
    ({ name, value }) => {
      expect(Reflect.get(defaults, name)).toBeUndefined();
      expect(faultsOf({ [name]: value })).toEqual([]);
    },
  );

  it('shows what the others follow from', () => {
    const all = parseEnvironment(
      Object.fromEntries(examples.map(({ name, value }) => [name, value])),
    );
    for (const follower of ['issuer', 'audiences', 'jwksUrl', 'directUrl'] as const) {
      expect(all[follower]).toEqual(defaults[follower]);
    }
  });
});

describe('faults', () => {
  // A line break is in no value that would do.
  const rubbish = Object.fromEntries(NAMES.map((name) => [name, 'hunter2\n']));

  it('come all at once, each with its variable', () => {
    const named = faultsOf(rubbish).map((fault) => fault.split(' ')[0]);
    // Lists take any words; what they mean together is another rule.
    const anyText = ['DATABASE_SCHEMA', 'JWT_AUDIENCE', 'ROLES', 'ADMIN_USER_IDS'];
    expect(named).toEqual(
      NAMES.filter((name) => !anyText.includes(name) && name !== 'ADMIN_ROLES'),
    );
    expect(faultsOf({ ROLES: 'user', ADMIN_ROLES: 'root', PORT: 'x' })).toHaveLength(2);
  });

  it('never hold a value', () => {
    for (const variables of [rubbish, { DATABASE_URL: 'mysql://gate:hunter2@db/app' }]) {
      expect(faultsOf(variables).length).toBeGreaterThan(0);
      expect(faultsOf(variables).join()).not.toContain('hunter2');
    }
  });

  it.each([
    { PORT: '80.5' },
    { PORT: '0x50' },
    { PORT: '-1' },
    { PORT: '65536' },
    { JWT_LEEWAY_SECONDS: '301' },
    { CHANGE_FEED: 'yes' },
    { JWT_ALGORITHMS: 'EdDSA,HS256' },
    { JWT_ALGORITHMS: 'none' },
    { DATABASE_URL: 'localhost:5432/app' },
    { DATABASE_URL: 'postgresql://gate:hunter#2@db/app' },
    { DATABASE_SCHEMA: 'a"b' },
    { BETTER_AUTH_URL: 'auth.example.com' },
    { TRUST_PROXY: 'true' },
    { TRUST_PROXY: 'True' },
    { TRUST_PROXY: '0.0.0.0/0' },
    { TRUST_PROXY: '10.0.0.1, ::/0' },
    { TRUST_PROXY: '10.0.0.0/33' },
    { TRUST_PROXY: 'proxy.example.com' },
    { CORS_ORIGINS: 'app.example.com' },
    { CORS_ORIGINS: 'https://app.example.com/' },
    { CORS_ORIGINS: '*' },
    { DATABASE_SCHEMA: 'a?b' },
    { JWKS_REFRESH_SECONDS: '300', JWKS_MAX_STALE_SECONDS: '299' },
  ])('%o is one', (variables) => {
    expect(faultsOf(variables as Record<string, string>)).toHaveLength(1);
  });

  it.each(['false', '0', '2', '10.0.0.1', '10.0.0.0/8, ::1', 'loopback, fd00::/8'])(
    'TRUST_PROXY=%s is none',
    (text) => {
      expect(faultsOf({ TRUST_PROXY: text })).toEqual([]);
    },
  );

  it.each(['', ' ', ' , '])(
    'an issuer or audience of nothing (%j) is one, never "no check"',
    (text) => {
      expect(faultsOf({ JWT_ISSUER: text.replace(',', '') })).toHaveLength(1);
      expect(faultsOf({ JWT_AUDIENCE: text })).toHaveLength(1);
    },
  );

  it('an empty value elsewhere means unset', () => {
    const empty = NAMES.filter((name) => name !== 'JWT_ISSUER' && name !== 'JWT_AUDIENCE');
    expect(parseEnvironment(Object.fromEntries(empty.map((name) => [name, ''])))).toEqual(
      new Environment(),
    );
  });
});

it('fetches keys over plain http from this machine alone, in development, too', () => {
  const here = { BETTER_AUTH_URL: 'http://localhost:3000' };
  expect(faultsOf(here)).toEqual([]);
  expect(faultsOf({ BETTER_AUTH_URL: 'http://auth.example.com' })).toEqual([
    expect.stringMatching(/^BETTER_AUTH_URL must use https/),
  ]);
  expect(faultsOf({ ...here, JWKS_URL: 'http://auth.example.com/jwks' })).toEqual([
    expect.stringMatching(/^JWKS_URL must use https/),
  ]);
});

describe('in production', () => {
  it('needs to be told where the database and Better-Auth are', () => {
    expect(faultsOf({ NODE_ENV: 'production' })).toEqual([
      'DATABASE_URL is required in production',
      'BETTER_AUTH_URL is required in production',
    ]);
    expect(faultsOf(PRODUCTION)).toEqual([]);
  });

  it.each([
    'http://auth.example.com',
    'http://127.0.0.1.example.com',
    'http://localhost.example.com',
  ])('fetches keys from %s nowhere', (url) => {
    expect(faultsOf({ ...PRODUCTION, BETTER_AUTH_URL: url })).toEqual([
      expect.stringMatching(/^BETTER_AUTH_URL must use https/),
    ]);
    expect(faultsOf({ ...PRODUCTION, JWKS_URL: `${url}/jwks` })).toEqual([
      expect.stringMatching(/^JWKS_URL must use https/),
    ]);
  });

  it.each(['http://localhost:3000', 'http://127.0.0.1:3000', 'http://[::1]:3000'])(
    'may speak plain HTTP to its own machine (%s)',
    (url) => {
      expect(faultsOf({ ...PRODUCTION, BETTER_AUTH_URL: url })).toEqual([]);
    },
  );
});

describe('the .env file', () => {
  let folder: string;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'gatehouse-env-'));
    writeFileSync(
      join(folder, '.env'),
      'DATABASE_URL=postgresql://gate@127.0.0.1:1/app\nDATABASE_POOL_MAX=none\n',
    );
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  function faultsIn(variables: Record<string, string>): string {
    const program = resolve('dist/src/database/doctor.js');
    const { stderr } = spawnSync(process.execPath, [program], {
      cwd: folder,
      env: variables,
      encoding: 'utf8',
    });
    return stderr;
  }

  it.each([{}, { NODE_ENV: '' }, { NODE_ENV: 'development' }])(
    'is read in development (%o)',
    (variables) => {
      expect(faultsIn(variables as Record<string, string>)).toBe(
        'The environment is not usable:\n  - DATABASE_POOL_MAX must be a whole number from 1 to 1000\n',
      );
    },
  );

  it('gives way to the environment', () => {
    expect(faultsIn({ DATABASE_POOL_MAX: '5' })).toBe(
      'No PostgreSQL answers at 127.0.0.1:1 (connection refused).\n',
    );
  });

  it.each(['production', 'test'])('is not read in %s', (stage) => {
    const stderr = faultsIn({
      ...PRODUCTION,
      NODE_ENV: stage,
      DATABASE_URL: 'postgresql://[::1]:1/x',
    });
    expect(stderr).not.toMatch(/DATABASE_POOL_MAX|127\.0\.0\.1/);
  });
});
