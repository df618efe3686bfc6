import { openSync } from 'node:fs';
import { connect } from 'node:net';
import { MikroORM, UniqueConstraintViolationException } from '@mikro-orm/postgresql';
import { createLogger } from '../../src/logging/logger.js';
import { parseEnvironment } from '../../src/config/environment.js';
import { withConnection } from '../../src/database/connection.js';
import { inspectWith } from '../../src/database/inspect.js';
import { User } from '../../src/better-auth/user.entity.js';
import { ormOptions } from '../../mikro-orm.config.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import {
  killProcesses,
  type KeySet,
  startProcess,
  type AppProcess,
  startKeySet,
} from '../support/app-process.js';

let database: TestDatabase;
let issuer: KeySet;
let variables: Record<string, string>;

beforeAll(async () => {
  database = await createDatabase();
  issuer = await startKeySet();
  variables = {
    DATABASE_URL: database.url,
    BETTER_AUTH_URL: issuer.url,
    SHUTDOWN_DELAY_MS: '0',
  };
});

afterAll(async () => {
  killProcesses();
  issuer.close();
  await database.drop();
});

/** So many requests, 20 at a time; resolves with how many were answered with 200. */
async function askMany(served: AppProcess, count: number, path = '/health/live'): Promise<number> {
  let answered = 0;
  for (let batch = 0; batch < count / 20; batch += 1) {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => fetch(`${served.url}${path}`)),
    );
    for (const answer of answers) {
      await answer.text();
      if (answer.status === 200) answered += 1;
    }
  }
  return answered;
}

describe('a log that cannot be written', () => {
  it.each([
    ['a closed pipe', () => 'closed' as const],
    ['a full disk', () => openSync('/dev/full', 'w')],
    ['a reader that has stopped', () => 'unread' as const],
  ])('%s: serves on, does not grow, and ends when it is told to', async (_what, output) => {
    const served = await startProcess(
      { ...variables, NODE_OPTIONS: `--import ${WARN_OFTEN_WHEN_TOLD}` },
      { output: output() },
    );
    const warnAndServe = async () => {
      // Lines of more than 10 MB. What strangers ask for is written only a few hundred times.
      served.child.kill('SIGUSR2');
      expect(await askMany(served, 1000)).toBe(1000);
    };
    await warnAndServe();
    const before = served.residentMegabytes();
    for (let round = 0; round < 3; round += 1) await warnAndServe();
    expect(served.residentMegabytes() - before).toBeLessThan(60);
    const { code, ms } = await served.end('SIGTERM');
    expect(code).toBe(0);
    expect(ms).toBeLessThan(5000);
  });

  it('in development, too', async () => {
    const served = await startProcess(
      { ...variables, NODE_ENV: 'development' },
      { output: openSync('/dev/full', 'w') },
    );
    expect(await askMany(served, 200)).toBe(200);
    expect(await served.end('SIGTERM')).toMatchObject({ code: 0 });
  });
});

describe('what is written', () => {
  it('in production is JSON only, a line for a line, Nest’s own and Node’s warnings too', async () => {
    const served = await startProcess({
      ...variables,
      NODE_OPTIONS: `--import ${WARN_WHEN_TOLD}`,
    });
    served.child.kill('SIGUSR2');
    await fetch(`${served.url}/health`);
    await fetch(`${served.url}/nothing`);
    await served.end('SIGTERM');
    const lines = served.lines();
    expect(served.output.stderr).toBe('');
    expect(lines).toContainEqual(expect.objectContaining({ context: 'NestApplication' }));
    expect(lines).toContainEqual(
      expect.objectContaining({ level: 'warn', msg: 'this is old', err: expect.anything() }),
    );
    for (const line of lines) {
      expect(line).toMatchObject({ level: expect.any(String), time: expect.any(String) });
    }
  });

  it('in development is for people', async () => {
    const served = await startProcess({ ...variables, NODE_ENV: 'development' });
    await fetch(`${served.url}/api/v1/auth/me`);
    await served.end('SIGTERM');
    expect(served.output.stdout).toMatch(/INFO.*: request \{.*"route":"\/api\/v1\/auth\/me"/);
    expect(served.output.stdout).toMatch(/INFO.*: ended\n$/);
  });

  it('is what LOG_LEVEL asks for', async () => {
    const served = await startProcess({ ...variables, LOG_LEVEL: 'error' });
    await fetch(`${served.url}/nothing`);
    await served.end('SIGTERM');
    expect(served.output).toEqual({ stdout: '', stderr: '' });
  });

  it('never holds what a request brought along, wherever it stood', async () => {
    const served = await startProcess({ ...variables, LOG_LEVEL: 'trace' });
    const SECRET = 's3cr3t';
    const encoded = Buffer.from(JSON.stringify({ alg: 'EdDSA', kid: 'one', SECRET })).toString(
      'base64url',
    );
    const tokens = [SECRET, `${encoded}.${encoded}.${encoded}`, `${SECRET}.${SECRET}.${SECRET}`];
    for (const path of ['/health/live', '/health/db', '/api/v1/auth/me', `/none/${SECRET}`]) {
      for (const token of tokens) {
        await fetch(`${served.url}${path}?token=${SECRET}&a%0Ab=${SECRET}`, {
          headers: {
            authorization: `Bearer ${token}`,
            cookie: `better-auth.session_token=${SECRET}`,
            'x-api-key': SECRET,
            'x-request-id': `${SECRET} "with" spaces`,
            'user-agent': SECRET,
            referer: `http://${SECRET}/`,
          },
        });
      }
    }
    for (const body of [`{"password":"${SECRET}"}`, `{"password":"${SECRET}`, `"${SECRET}"`]) {
      await fetch(`${served.url}/health`, {
        method: 'POST',
        body,
        headers: { 'content-type': 'application/json' },
      });
    }
    await sendRaw(served, `GET /${SECRET} HTTP/1.1\r\nHost: a\r\nno colon ${SECRET}\r\n\r\n`);
    await sendRaw(served, `GET /${SECRET}\u0001 HTTP/1.1\r\nHost: a\r\n\r\n`);
    await served.end('SIGTERM');
    const written = served.output.stdout + served.output.stderr;
    expect(served.lines().filter(({ msg }) => msg === 'request').length).toBeGreaterThan(15);
    expect(written).not.toContain(SECRET);
    expect(written).not.toContain(encoded);
  });

  it('cannot be given a line by a client', async () => {
    const served = await startProcess(variables);
    const forged = '%0A{"level":"info","msg":"forged"}%0D%0A';
    await fetch(`${served.url}/${forged}?${forged}`, { headers: { 'x-request-id': forged } });
    await sendRaw(
      served,
      'GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: a\n{"msg":"forged"}\r\n\r\n',
    );
    await served.end('SIGTERM');
    expect(served.lines().filter(({ msg }) => msg === 'forged')).toEqual([]);
    expect(served.output.stdout).not.toContain('forged');
  });
});

const requestsOf = (served: AppProcess) => served.lines().filter(({ msg }) => msg === 'request');

describe('the lines of strangers', () => {
  it('are none for probes that succeed, unless LOG_LEVEL is debug', async () => {
    for (const [LOG_LEVEL, expected] of [
      ['info', 0],
      ['debug', 600],
    ] as const) {
      const served = await startProcess({ ...variables, LOG_LEVEL });
      for (const path of ['/health/live', '/health/db', '/health']) {
        expect(await askMany(served, 220, path)).toBe(220);
      }
      await served.end('SIGTERM');
      const lines = requestsOf(served);
      expect(lines).toHaveLength(expected);
      expect(lines.filter(({ level }) => level !== 'debug')).toEqual([]);
    }
  });

  it('say that a probe fails', async () => {
    issuer.unavailable = true;
    const served = await startProcess(variables);
    await fetch(`${served.url}/health/ready`);
    issuer.unavailable = false;
    await served.end('SIGTERM');
    expect(requestsOf(served)).toMatchObject([
      { level: 'info', route: '/health/ready', status: 503 },
    ]);
  });

  it('are bounded for what they are given, and apart from what they are refused', async () => {
    const served = await startProcess(variables);
    expect(await askMany(served, 640, '/api/v1/docs/index.html')).toBe(640);
    await askMany(served, 640, '/nothing');
    await fetch(`${served.url}/api/v1/auth/me`);
    await served.end('SIGTERM');
    const statuses = requestsOf(served).map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(600);
    expect(statuses.filter((status) => status === 404)).toHaveLength(600);
    expect(statuses.filter((status) => status === 401)).toHaveLength(1);
  });

  it('about bad tokens are bounded for each reason, so that a flood of one hides no other', async () => {
    const served = await startProcess(variables);
    const send = (authorization: string) =>
      fetch(`${served.url}/api/v1/auth/me`, { headers: { authorization } });
    for (let call = 0; call < 620; call += 1) await send(`Bearer junk${call}`);
    await send('Bearer a.b.c');
    await fetch(`${served.url}/api/v1/auth/me`);
    await served.end('SIGTERM');
    const reasons = served
      .lines()
      .filter(({ event }) => event === 'auth.failed')
      .map(({ code, reason }) => reason ?? code);
    expect(reasons.filter((reason) => reason === 'not-three-parts')).toHaveLength(100);
    expect(reasons.slice(100)).toEqual(['base64url', 'AUTH_MISSING_TOKEN']);
  });
});

const WARN_OFTEN_WHEN_TOLD =
  "data:text/javascript,process.on('SIGUSR2',()=>{for(let%20i=0;i<10000;i++)process.emitWarning('x'.repeat(500))})";
const WARN_WHEN_TOLD =
  "data:text/javascript,process.on('SIGUSR2',()=>process.emitWarning('this%20is%20old'))";

function sendRaw(served: AppProcess, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(served.port, '127.0.0.1', () => socket.write(text));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(answer));
  });
}

const logged = (write: (log: ReturnType<typeof createLogger>) => void) => {
  let text = '';
  const log = createLogger(parseEnvironment({ NODE_ENV: 'test' }), {
    write: (line) => (text += line),
  });
  write(log);
  return text;
};
const inEveryWay = (error: unknown) =>
  logged((log) => {
    log.error({ err: error });
    log.error(error);
    log.error({ err: error }, 'with words');
    log.child({ from: 'somewhere' }).error({ err: error });
    log.error(new Error('outer', { cause: error }));
    log.error(new AggregateError([new Error('one'), error], 'several'));
    log.error(new Error('outer', { cause: new AggregateError([error]) }));
  });

const faultOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

describe('an error in the log', () => {
  it('of the database names the code and the place, and quotes no value', async () => {
    const environment = parseEnvironment({ NODE_ENV: 'test', DATABASE_URL: database.url });
    const physical = await withConnection(database.url, (client) =>
      inspectWith(client, environment),
    );
    const orm = await MikroORM.init(ormOptions({ url: database.url, poolMax: 1, physical }));
    const em = orm.em.fork();
    const add = (id: string) =>
      em.insert(User, {
        id,
        email: 's3cr3t@example.com',
        name: 's3cr3t',
        emailVerified: false,
        createdAt: new Date(),
        updatedAt: new Date(),
      });
    await add('a');
    const faults = await Promise.all([
      faultOf(add('b')),
      faultOf(em.execute('select ?::uuid', ['s3cr3t'])),
      faultOf(em.getConnection().execute('select s3cr3t from "user"')),
      faultOf(em.findOneOrFail(User, { email: 's3cr3t' })),
    ]);
    await orm.close();
    expect(faults[0]).toBeInstanceOf(UniqueConstraintViolationException);
    for (const fault of faults) {
      expect(fault).toBeInstanceOf(Object);
      const text = inEveryWay(fault);
      expect(text).not.toContain('s3cr3t');
      expect(text.trim().split('\n')).toHaveLength(7);
    }
    expect(JSON.parse(logged((log) => log.error({ err: faults[0] })))).toMatchObject({
      level: 'error',
      msg: 'UniqueConstraintViolationException',
      err: {
        type: 'UniqueConstraintViolationException',
        code: '23505',
        constraint: 'user_email_key',
        table: 'user',
        stack: expect.stringContaining(' at '),
      },
    });
  });

  it('that quotes what could not be parsed does not', () => {
    let fault: unknown;
    try {
      JSON.parse('{"password":"s3cr3t');
      JSON.parse('s3cr3t');
    } catch (error) {
      fault = error;
    }
    expect(inEveryWay(fault)).not.toContain('s3cr3t');
  });

  it('of our own says what it says, down to its causes', () => {
    const error = new Error('above', { cause: new TypeError('below') });
    expect(JSON.parse(logged((log) => log.error(error)))).toMatchObject({
      msg: 'above',
      err: { type: 'Error', message: 'above', cause: { type: 'TypeError', message: 'below' } },
    });
  });

  it('has no frames that its message made up', () => {
    expect(logged((log) => log.error(new Error('x\n    at s3cr3t'), 'words'))).not.toMatch(
      /"stack":"[^"]*s3cr3t/,
    );
  });

  it('may be anything that was thrown', () => {
    const circular = new Error('circular');
    circular.cause = circular;
    for (const thrown of ['a text', 42, null, undefined, {}, circular]) {
      expect(
        logged((log) => log.error({ err: thrown }))
          .trim()
          .split('\n'),
      ).toHaveLength(1);
    }
  });
});
