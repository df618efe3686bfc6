import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { findFreePort } from '../../tools/ports.ts';
import { selectKeys, type VerificationKey } from '../../src/auth/jwk.js';
import { fetchKeySet } from '../../src/auth/jwks-fetcher.js';
import { explainToken } from '../../src/cli/explain-token.js';
import { ALGORITHMS, parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { inspectWith } from '../../src/database/inspect.js';
import { runBuilt } from '../support/built-program.js';
import { createDatabase, type TestDatabase, withDirectUrl } from '../support/database.js';
import { findProgram } from '../support/external-program.js';
import { signUp, type TestUser } from '../support/users.js';

let database: TestDatabase;
let other: TestDatabase;
let auth: BetterAuth;
let ada: TestUser;

beforeAll(async () => {
  [database, other] = await Promise.all([createDatabase(), createDatabase()]);
  auth = await startBetterAuth({ databaseUrl: database.url });
});
afterAll(async () => {
  await auth.stop();
  await Promise.all([database.drop(), other.drop()]);
});
beforeEach(async () => {
  ada = await signUp(auth);
});

describe('explanation of a refused token', () => {
  afterEach(() => jest.restoreAllMocks());

  const hours = (count: number) => count * 3_600_000;
  const shiftClock = (ms: number) => {
    const now = Date.now();
    jest.spyOn(Date, 'now').mockReturnValue(now + ms);
  };

  it.each<{
    why: string;
    sentence: RegExp;
    variables?: () => Record<string, string>;
    token?: () => string;
    prepare?: () => unknown;
    keys?: ReadonlyMap<string, VerificationKey>;
  }>([
    {
      why: 'of another issuer',
      variables: () => ({ JWT_ISSUER: 'https://auth.example.com' }),
      sentence:
        /^it was issued by "http:\/\/[\w.:]+", but "https:\/\/auth\.example\.com" is required\. Set JWT_ISSUER/,
    },
    {
      why: 'for another audience',
      variables: () => ({ JWT_AUDIENCE: 'shop,blog' }),
      sentence:
        /^it is for "http:\/\/[\w.:]+", but "shop" or "blog" is required\. Set JWT_AUDIENCE/,
    },
    {
      why: 'with a changed signature',
      token: () => `${ada.token.slice(0, -8)}AAAAAAAA`,
      sentence: /^its signature is wrong/,
    },
    {
      why: 'that is a session token of Better-Auth',
      token: () => ada.session.replaceAll('.', ''),
      sentence: /^it is not a JWT/,
    },
    {
      why: 'that was cut off',
      token: () => ada.token.slice(5),
      sentence: /^it is malformed \(\w+\)/,
    },
    { why: 'of a key that was removed', keys: new Map(), sentence: /^the key set has no key/ },
    {
      why: 'with an algorithm that is not allowed',
      variables: () => ({ JWT_ALGORITHMS: 'RS256' }),
      sentence: /^its algorithm is not one of JWT_ALGORITHMS \(RS256\)/,
    },
    {
      why: 'with too long a lifetime',
      variables: () => ({ JWT_MAX_LIFETIME_SECONDS: '1' }),
      sentence: /^its lifetime is longer than JWT_MAX_LIFETIME_SECONDS/,
    },
    { why: 'that has expired', prepare: () => shiftClock(hours(2)), sentence: /^it has expired/ },
    {
      why: 'from the future',
      prepare: () => shiftClock(hours(-2)),
      sentence: /^it was issued in the future\. The clocks differ/,
    },
    {
      why: 'without a session id, if one is required',
      variables: () => ({ SESSION_BINDING: 'require-sid' }),
      sentence: /^it names no session/,
    },
    {
      why: 'of a user in another database',
      variables: () => ({ DATABASE_URL: other.url }),
      sentence: /^its user is not in this database/,
    },
    {
      why: 'of a banned user',
      prepare: () => database.sql('update "user" set banned = true where id = $1', [ada.id]),
      sentence: /^its user is banned/,
    },
    {
      why: 'of a session that has ended',
      prepare: () => database.sql('delete from session where "userId" = $1', [ada.id]),
      sentence: /^its session has ended/,
    },
  ])('names the reason for a token $why, and does not contain the token', async (example) => {
    const { sentence, variables = () => ({}), token = () => ada.token, prepare, keys } = example;
    await prepare?.();
    const explanation = await explain(token(), variables(), keys);
    expect(explanation).toMatch(sentence);
    for (const part of token().split('.')) expect(explanation).not.toContain(part);
  });

  it('does not exist for a token that Gatehouse accepts', async () => {
    expect(await explain(ada.token)).toBeUndefined();
  });

  async function explain(
    token: string,
    variables: Record<string, string> = {},
    keys?: ReadonlyMap<string, VerificationKey>,
  ): Promise<string | undefined> {
    const environment = parseEnvironment({
      NODE_ENV: 'test',
      BETTER_AUTH_URL: auth.origin,
      ...withDirectUrl({ DATABASE_URL: database.url, ...variables }),
    });
    const physical = await withConnection(environment.directUrl, (client) =>
      inspectWith(client, environment),
    );
    const published = await fetchKeySet(environment.jwksUrl, new AbortController().signal);
    const usable = keys ?? selectKeys(published.keys, ALGORITHMS).keys;
    return explainToken(token, usable, environment, physical);
  }
});

describe('npm run doctor -- --online', () => {
  let issuer: Server | undefined;
  afterEach(() => issuer?.close());

  const doctor = (
    variables: Record<string, string>,
    { args = ['--online'], token }: { args?: string[]; token?: string } = {},
  ) =>
    runBuilt(
      'src/cli/doctor.js',
      { DATABASE_URL: database.url, BETTER_AUTH_URL: auth.origin, ...variables },
      args,
      token,
    );

  const linesWith = (prefix: string, report: string) =>
    report.split('\n').filter((line) => line.startsWith(prefix));

  it('accepts a valid token and finds no fault', async () => {
    let report = await doctor({}, { token: `Bearer ${ada.token}\n` });
    // A busy machine can take longer than the timeout of the feed.
    for (let retry = 0; retry < 3 && report.stdout.includes('change feed'); retry += 1) {
      report = await doctor({}, { token: `Bearer ${ada.token}\n` });
    }
    const { code, stdout, stderr } = report;
    expect({ code, stderr, faults: linesWith('FAULT', stdout) }).toEqual({
      code: 0,
      stderr: '',
      faults: [],
    });
    expect(stdout).toMatch(/^issuer  1 usable keys \(EdDSA\)$/m);
    expect(stdout).toMatch(/^TLS     not used: the issuer is on this machine$/m);
    expect(stdout).toMatch(/^clock   the issuer is within 1\.5 s of this machine$/m);
    expect(stdout).toMatch(/^token   accepted$/m);
    expect(stdout).toMatch(/^pool    1 × \(10 \+ 2\) connections needed, \d+ allowed, \d+ in use/m);
    expect(stdout).toMatch(/^feed    the changes were read after \d+ ms/m);
  });

  it('exits with 1 for a refused token and for a change feed of another database', async () => {
    const { code, stdout, stderr } = await doctor(
      { JWT_AUDIENCE: 'shop', DATABASE_DIRECT_URL: database.directUrl, DATABASE_URL: other.url },
      { token: ada.token },
    );
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
    expect(linesWith('FAULT', stdout)).toEqual([
      expect.stringMatching(/^FAULT   Gatehouse refuses the token: it is for "http/),
      expect.stringMatching(
        /^FAULT   The change feed does not work.* DATABASE_DIRECT_URL leads to another/,
      ),
    ]);
    expect(stdout).not.toContain(ada.token.slice(0, 20));
  });

  it('warns about more connections than PostgreSQL allows, and about the clock of the issuer', async () => {
    issuer = createServer((_request, response) => {
      response.setHeader('date', new Date(Date.now() + 60_000).toUTCString()).end('{"keys":[]}');
    }).listen(0, '127.0.0.1');
    await once(issuer, 'listening');
    const { port } = issuer.address() as AddressInfo;
    const { code, stdout } = await doctor(
      { BETTER_AUTH_URL: `http://127.0.0.1:${port}`, CHANGE_FEED: 'off' },
      { args: ['--online', '--replicas', '500'] },
    );
    expect(code).toBe(1);
    expect(linesWith('FAULT', stdout)).toEqual([
      'FAULT   The key set cannot be fetched: the key set is empty.',
    ]);
    expect(linesWith('warning', stdout)).toEqual([
      expect.stringMatching(/^warning The clock of the issuer is [56]\d s ahead of this machine/),
      expect.stringMatching(
        /^warning 500 replicas need up to 6000 connections\. PostgreSQL allows/,
      ),
    ]);
    expect(stdout).toMatch(/^token   none on standard input/m);
  });

  it('explains why the key set cannot be fetched', async () => {
    const { code, stdout } = await doctor({
      BETTER_AUTH_URL: `http://127.0.0.1:${await findFreePort()}`,
      CHANGE_FEED: 'off',
    });
    expect({ code, faults: linesWith('FAULT', stdout) }).toEqual({
      code: 1,
      faults: [
        'FAULT   The key set cannot be fetched: nothing listens at that address (connection refused).',
      ],
    });
    expect(stdout).toMatch(/^feed    off \(CHANGE_FEED=off\)$/m);
  });

  const openssl = findProgram('openssl');
  const withOpenssl = openssl ? it : it.skip;

  withOpenssl('reports the certificate of the issuer, and in words why it is refused', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'gatehouse-'));
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const subject = ['-subj', '/CN=issuer', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const files = ['-keyout', key, '-out', cert, '-days', '10'];
    execFileSync(
      openssl ?? '',
      ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...files, ...subject],
      { stdio: 'ignore' },
    );
    issuer = createSecureServer(
      { key: readFileSync(key), cert: readFileSync(cert) },
      (_request, response) => void response.end('{"keys":[]}'),
    ).listen(0, '127.0.0.1');
    await once(issuer, 'listening');
    const { port } = issuer.address() as AddressInfo;
    const variables = { BETTER_AUTH_URL: `https://127.0.0.1:${port}`, CHANGE_FEED: 'off' };
    const [unknown, trusted] = await Promise.all([
      doctor(variables),
      doctor({ ...variables, NODE_EXTRA_CA_CERTS: cert }),
    ]);
    rmSync(folder, { recursive: true });
    expect(linesWith('FAULT', unknown.stdout)).toEqual([
      'FAULT   The key set cannot be fetched: its TLS certificate is self-signed: set NODE_EXTRA_CA_CERTS.',
    ]);
    expect(trusted.stdout).toMatch(/^TLS     the certificate is valid for 9 days$/m);
    expect(linesWith('warning', trusted.stdout)).toEqual([
      'warning The certificate of the issuer expires in 9 days. Renew it.',
    ]);
  });

  it('explains its options if an option is wrong', async () => {
    const { code, stdout, stderr } = await doctor({}, { args: ['--onlin'] });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/--online .*\n/);
  });
});
