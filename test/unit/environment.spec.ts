import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import {
  Environment,
  InvalidEnvironmentError,
  parseEnvironment,
} from '../../src/config/environment.js';
import { writePermissions } from '../support/permissions-file.js';
import { configurationWarnings } from '../../src/config/warnings.js';

const NAMES = Object.keys(new Environment());
const PRODUCTION = {
  NODE_ENV: 'production',
  DATABASE_URL: 'postgresql://gate:secret@db/app',
  BETTER_AUTH_URL: 'https://auth.example.com',
};

function errorsOf(variables: Record<string, string>): string[] {
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

  it('lists every variable once, in the order of the Environment class', () => {
    expect(examples.map(({ name }) => name)).toEqual(NAMES);
  });

  it.each(examples.filter(({ setByDefault }) => setByDefault))(
    'shows the default of $name',
    ({ name, value }) => {
      expect(parseEnvironment({ [name]: value })).toEqual(defaults);
      const meaning = { on: 'true', off: 'false' }[value] ?? value;
      expect(String(Reflect.get(defaults, name))).toBe(meaning);
    },
  );

  it.each(examples.filter(({ setByDefault }) => !setByDefault))(
    'shows a valid example for $name, which has no default',
    ({ name, value }) => {
      expect(Reflect.get(defaults, name)).toBeUndefined();
      expect(errorsOf({ [name]: value })).toEqual([]);
    },
  );

  it('shows example values that equal the derived defaults', () => {
    const all = parseEnvironment(
      Object.fromEntries(examples.map(({ name, value }) => [name, value])),
    );
    for (const follower of ['issuer', 'audiences', 'jwksUrl', 'directUrl'] as const) {
      expect(all[follower]).toEqual(defaults[follower]);
    }
  });
});

describe('environment errors', () => {
  // No valid value contains a line break.
  const invalid = Object.fromEntries(NAMES.map((name) => [name, 'hunter2\n']));

  it('reports all errors at once, each with the name of its variable', () => {
    const named = errorsOf(invalid).map((error) => error.split(' ')[0]);
    // Lists accept any text. The rules about several variables are separate.
    const anyText = [
      'DATABASE_SCHEMA',
      'JWT_AUDIENCE',
      'ROLES',
      'ADMIN_USER_IDS',
      'CORS_ALLOWED_HEADERS',
    ];
    expect(named).toEqual(
      NAMES.filter((name) => !anyText.includes(name) && name !== 'ADMIN_ROLES'),
    );
    expect(errorsOf({ ROLES: 'user', ADMIN_ROLES: 'root', PORT: 'x' })).toHaveLength(2);
  });

  it('never contains a value in an error message', () => {
    for (const variables of [invalid, { DATABASE_URL: 'mysql://gate:hunter2@db/app' }]) {
      expect(errorsOf(variables).length).toBeGreaterThan(0);
      expect(errorsOf(variables).join()).not.toContain('hunter2');
    }
  });

  it.each([
    { PORT: '80.5' },
    { PORT: '0x50' },
    { PORT: '-1' },
    { PORT: '65536' },
    { METRICS_PORT: '8000' },
    { JWT_LEEWAY_SECONDS: '301' },
    { CHANGE_FEED: 'yes' },
    { JWT_ALGORITHMS: 'EdDSA,HS256' },
    { JWT_ALGORITHMS: 'none' },
    { DATABASE_URL: 'localhost:5432/app' },
    { DATABASE_URL: 'postgresql://gate:hunter#2@db/app' },
    { DATABASE_SCHEMA: 'a"b' },
    { BETTER_AUTH_URL: 'auth.example.com' },
    { BETTER_AUTH_URL: 'https://admin:secret@auth.example.com' },
    { JWKS_URL: 'https://admin@auth.example.com/jwks' },
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
    { CORS_ORIGINS: 'https://*.example.com' },
    { CORS_ALLOWED_HEADERS: 'X-Tenant:1' },
    { DATABASE_SCHEMA: 'a?b' },
    { JWKS_REFRESH_SECONDS: '300', JWKS_MAX_STALE_SECONDS: '299' },
  ])('rejects %o with one error', (variables) => {
    expect(errorsOf(variables as Record<string, string>)).toHaveLength(1);
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
  ])('accepts TRUST_PROXY=%s', (text) => {
    expect(errorsOf({ TRUST_PROXY: text })).toEqual([]);
  });

  it.each(['', ' ', ' , '])(
    'rejects a blank issuer or audience (%j) instead of skipping the check',
    (text) => {
      expect(errorsOf({ JWT_ISSUER: text.replace(',', '') })).toHaveLength(1);
      expect(errorsOf({ JWT_AUDIENCE: text })).toHaveLength(1);
    },
  );

  it('treats an empty value of any other variable as unset', () => {
    const empty = NAMES.filter((name) => name !== 'JWT_ISSUER' && name !== 'JWT_AUDIENCE');
    expect(parseEnvironment(Object.fromEntries(empty.map((name) => [name, ''])))).toEqual(
      new Environment(),
    );
  });
});

it('accepts plain http for keys only on loopback, also in development', () => {
  const here = { BETTER_AUTH_URL: 'http://localhost:3000' };
  expect(errorsOf(here)).toEqual([]);
  expect(errorsOf({ BETTER_AUTH_URL: 'http://auth.example.com' })).toEqual([
    expect.stringMatching(/^BETTER_AUTH_URL must use https/),
  ]);
  expect(errorsOf({ ...here, JWKS_URL: 'http://auth.example.com/jwks' })).toEqual([
    expect.stringMatching(/^JWKS_URL must use https/),
  ]);
});

describe('production environment', () => {
  it('requires DATABASE_URL and BETTER_AUTH_URL in production', () => {
    expect(errorsOf({ NODE_ENV: 'production' })).toEqual([
      'DATABASE_URL is required in production',
      'BETTER_AUTH_URL is required in production',
    ]);
    expect(errorsOf(PRODUCTION)).toEqual([]);
  });

  it.each([
    'http://auth.example.com',
    'http://127.0.0.1.example.com',
    'http://localhost.example.com',
  ])('rejects plain http to %s in production', (url) => {
    expect(errorsOf({ ...PRODUCTION, BETTER_AUTH_URL: url })).toEqual([
      expect.stringMatching(/^BETTER_AUTH_URL must use https/),
    ]);
    expect(errorsOf({ ...PRODUCTION, JWKS_URL: `${url}/jwks` })).toEqual([
      expect.stringMatching(/^JWKS_URL must use https/),
    ]);
  });

  it.each(['http://localhost:3000', 'http://127.0.0.1:3000', 'http://[::1]:3000'])(
    'accepts plain http on loopback in production (%s)',
    (url) => {
      expect(errorsOf({ ...PRODUCTION, BETTER_AUTH_URL: url })).toEqual([]);
    },
  );
});

describe('configuration warnings', () => {
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
  ])('warns that %s has no effect and suggests %s', (name, meant) => {
    expectOne(
      { [name]: 'hunter2' },
      new RegExp(`^config.unknown-variable: ${name} .*no effect.* ${meant}\\?$`),
    );
    expect(warningsOf({ [name]: 'hunter2' }).join()).not.toContain('hunter2');
  });

  it.each(['JWT_CLOCK_TOLERANCE', 'RATE_LIMIT_BURST'])(
    'warns about the unknown variable %s because of its prefix',
    (name) => {
      expectOne({ [name]: '60' }, new RegExp(`^config.unknown-variable: ${name} .*no effect\\.$`));
    },
  );

  it('does not warn about variables of the platform or of other programs', () => {
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
  ])('warns about a remote database without TLS (%s)', (url) => {
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
  ])('does not warn about a database with TLS or a local one (%s)', (url) => {
    expect(warningsOf({ ...PRODUCTION, DATABASE_URL: url })).toEqual([]);
  });

  it('warns that token-only does not check sessions', () => {
    expectOne({ SESSION_BINDING: 'token-only' }, /^config.token-only: SESSION_BINDING=token-only/);
  });

  it('warns about roles of ROLES that PERMISSIONS_FILE lacks, except the one of every user', () => {
    const variables = writePermissions({ admin: { user: ['list'] }, guest: {} });
    expect(warningsOf(variables)).toEqual([]);
    expectOne(
      { ...variables, ROLES: 'user,guest,owner,admin,auditor' },
      /^config.role-without-permissions: PERMISSIONS_FILE lacks "owner", "auditor", which ROLES/,
    );
    expect(warningsOf({ ROLES: 'user,admin,owner' })).toEqual([]);
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

  function startupErrors(variables: Record<string, string>): string {
    const program = resolve('dist/src/cli/doctor.js');
    const { stderr } = spawnSync(process.execPath, [program], {
      cwd: folder,
      env: variables,
      encoding: 'utf8',
    });
    return stderr;
  }

  it.each([{}, { NODE_ENV: '' }, { NODE_ENV: 'development' }])(
    'reads the .env file in development (%o)',
    (variables) => {
      expect(startupErrors(variables as Record<string, string>)).toBe(
        'The environment is not usable:\n  - DATABASE_POOL_MAX must be a whole number from 1 to 1000\n',
      );
    },
  );

  it('prefers the environment to the .env file', () => {
    expect(startupErrors({ DATABASE_POOL_MAX: '5' })).toBe(
      'PostgreSQL is not reachable at 127.0.0.1:1 (connection refused).\n',
    );
  });

  it.each(['production', 'test'])('ignores the .env file in %s', (stage) => {
    const stderr = startupErrors({
      ...PRODUCTION,
      NODE_ENV: stage,
      DATABASE_URL: 'postgresql://[::1]:1/x',
    });
    expect(stderr).not.toMatch(/DATABASE_POOL_MAX|127\.0\.0\.1/);
  });
});
