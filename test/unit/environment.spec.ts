import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import {
  Environment,
  InvalidEnvironmentError,
  parseEnvironment,
} from '../../src/config/environment.js';
import { configurationWarnings } from '../../src/config/warnings.js';

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
    if (error instanceof InvalidEnvironmentError) return error.errors;
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
    { TRUST_PROXY: '0.0.0.0/1,128.0.0.0/1' },
    { TRUST_PROXY: '0.0.0.0/1, 128.0.0.0/2, 192.0.0.0/3, 224.0.0.0/3' },
    { TRUST_PROXY: '::/1,8000::/1' },
    { TRUST_PROXY: '2000::/4,3000::/4' },
    { TRUST_PROXY: '::ffff:0:0/97,128.0.0.0/1' },
    { TRUST_PROXY: 'fe80::1%eth0' },
    { ADMIN_ROLES: 'admin,user' },
    { JWT_SESSION_CLAIM: 'sub' },
    { JWT_SESSION_CLAIM: 'iat' },
    { TRUST_PROXY: 'proxy.example.com' },
    { CORS_ORIGINS: 'app.example.com' },
    { CORS_ORIGINS: 'https://app.example.com/' },
    { CORS_ORIGINS: '*' },
    { DATABASE_SCHEMA: 'a?b' },
    { JWKS_REFRESH_SECONDS: '300', JWKS_MAX_STALE_SECONDS: '299' },
  ])('%o is one', (variables) => {
    expect(faultsOf(variables as Record<string, string>)).toHaveLength(1);
  });

  it.each([
    'false',
    '0',
    '2',
    '10.0.0.1',
    '10.0.0.0/8, ::1',
    'loopback, fd00::/8',
    '::ffff:10.0.0.1',
    '0.0.0.0/1,128.0.0.0/2',
    '2000::/4',
  ])('TRUST_PROXY=%s is none', (text) => {
    expect(faultsOf({ TRUST_PROXY: text })).toEqual([]);
  });

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

describe('warnings', () => {
  const warningsOf = (variables: Record<string, string>) =>
    configurationWarnings(parseEnvironment(variables), Object.keys(variables)).map(
      ({ event, message }) => `${event}: ${message}`,
    );
  const expectOne = (variables: Record<string, string>, words: RegExp) =>
    expect(warningsOf(variables)).toEqual([expect.stringMatching(words)]);

  it.each([
    ['SESSION_BIND', 'SESSION_BINDING'],
    ['JWT_ISSUERS', 'JWT_ISSUER'],
    ['JWT_AUDIENCES', 'JWT_AUDIENCE'],
    ['DATABSE_URL', 'DATABASE_URL'],
    ['DATABASE_POOL', 'DATABASE_POOL_MAX'],
    ['CORS_ORIGIN', 'CORS_ORIGINS'],
    ['RATE_LIMIT_PER_MIN', 'RATE_LIMIT_PER_MINUTE'],
    ['ADMIN_ROLE', 'ADMIN_ROLES'],
    ['cors_origins', 'CORS_ORIGINS'],
  ])('name %s, which has no effect, and %s, which may be meant', (name, meant) => {
    expectOne(
      { [name]: 'hunter2' },
      new RegExp(`^config.unknown-variable: ${name} .*no effect.* ${meant}\\?$`),
    );
    expect(warningsOf({ [name]: 'hunter2' }).join()).not.toContain('hunter2');
  });

  it.each(['JWT_CLOCK_TOLERANCE', 'RATE_LIMIT_BURST'])('name %s, of a family of ours', (name) => {
    expectOne({ [name]: '60' }, new RegExp(`^config.unknown-variable: ${name} .*no effect\\.$`));
  });

  it('name no variable of the platform or of another program', () => {
    const foreign = `
      PATH HOME HOSTNAME PORTS POST NODE_OPTIONS NODE_EXTRA_CA_CERTS DATABASE_URL_UNPOOLED
      DATABASE_PORT DATABASE_SERVICE_HOST DATABASE_PASSWORD DATABASE_PORT_5432_TCP
      JWKS_SERVICE_HOST JWKS_PORT_80_TCP_ADDR JWKS_PORT BETTER_AUTH_SECRET
      BETTER_AUTH_PORT BETTER_AUTH_TRUSTED_ORIGINS DATA_DIR SESSION_MANAGER SESSION_SECRET
      DESKTOP_SESSION LOGNAME USER ROLE PGHOST PGSSLMODE POSTGRES_URL POSTGRES_PORT
      TEST_PGBOUNCER http_proxy npm_lifecycle_event KUBERNETES_PORT VERCEL_URL JWT SESSION
      DATABASE
    `.trim();
    expect(warningsOf(Object.fromEntries(foreign.split(/\s+/).map((name) => [name, 'x'])))).toEqual(
      [],
    );
    expect(configurationWarnings(new Environment(), NAMES)).toEqual([]);
  });

  it.each([
    'postgresql://gate:secret@db.example.com/app',
    'postgresql://gate:secret@10.1.2.3/app',
    'postgresql://gate:secret@db.example.com/app?sslmode=disable',
  ])('name a database that is reached without TLS (%s)', (url) => {
    expectOne({ ...PRODUCTION, DATABASE_URL: url }, /^config.database-without-tls: DATABASE_URL: /);
    expectOne(
      { ...PRODUCTION, DATABASE_DIRECT_URL: url },
      /^config.database-without-tls: DATABASE_DIRECT_URL: /,
    );
    expect(warningsOf({ ...PRODUCTION, DATABASE_URL: url }).join()).not.toContain('secret');
    expect(warningsOf({ ...PRODUCTION, NODE_ENV: 'test', DATABASE_URL: url })).toEqual([]);
  });

  it.each([
    'postgresql://gate@db.example.com/app?sslmode=verify-full',
    'postgresql://gate@db.example.com/app?ssl=true',
    'postgresql://gate@127.0.0.1/app',
    'postgresql://gate@[::1]/app',
    'postgresql://gate@localhost/app',
    'postgresql:///app?host=/var/run/postgresql',
    'postgresql://gate@postgres/app',
  ])('do not name a database with TLS, or of this machine or its containers (%s)', (url) => {
    expect(warningsOf({ ...PRODUCTION, DATABASE_URL: url })).toEqual([]);
  });

  it('say what token-only does not check', () => {
    expectOne({ SESSION_BINDING: 'token-only' }, /^config.token-only: SESSION_BINDING=token-only/);
  });
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
    const program = resolve('dist/src/cli/doctor.js');
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
      'PostgreSQL is not reachable at 127.0.0.1:1 (connection refused).\n',
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
