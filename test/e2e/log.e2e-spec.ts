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

/** Sends `count` requests, 20 at a time. Returns the number of responses with status 200. */
async function sendMany(app: AppProcess, count: number, path = '/health/live'): Promise<number> {
  let succeeded = 0;
  for (let batch = 0; batch < count / 20; batch += 1) {
    const answers = await Promise.all(Array.from({ length: 20 }, () => fetch(`${app.url}${path}`)));
    for (const answer of answers) {
      await answer.text();
      if (answer.status === 200) succeeded += 1;
    }
  }
  return succeeded;
}

describe('unwritable log', () => {
  it.each([
    ['a closed pipe', () => 'closed' as const],
    ['a full disk', () => openSync('/dev/full', 'w')],
    ['a reader that has stopped reading', () => 'unread' as const],
  ])(
    'keeps serving in constant memory and shuts down when the log is %s',
    async (_what, output) => {
      const app = await startProcess(
        { ...variables, NODE_OPTIONS: `--import ${WARN_OFTEN_ON_SIGNAL}` },
        { output: output() },
      );
      const warnAndServe = async () => {
        // This logs more than 10 MB. Of anonymous requests only a few hundred lines are logged.
        app.child.kill('SIGUSR2');
        expect(await sendMany(app, 1000)).toBe(1000);
      };
      await warnAndServe();
      const before = app.residentMegabytes();
      for (let round = 0; round < 3; round += 1) await warnAndServe();
      expect(app.residentMegabytes() - before).toBeLessThan(60);
      const { code } = await app.end('SIGTERM');
      expect(code).toBe(0);
    },
  );

  it('keeps serving in development when the disk of the log is full', async () => {
    const app = await startProcess(
      { ...variables, NODE_ENV: 'development' },
      { output: openSync('/dev/full', 'w') },
    );
    expect(await sendMany(app, 200)).toBe(200);
    expect(await app.end('SIGTERM')).toMatchObject({ code: 0 });
  });
});

describe('log format', () => {
  it('writes one JSON object per line in production, also for lines of Nest and warnings of Node', async () => {
    const app = await startProcess({
      ...variables,
      NODE_OPTIONS: `--import ${WARN_ON_SIGNAL}`,
    });
    app.child.kill('SIGUSR2');
    await fetch(`${app.url}/health`);
    await fetch(`${app.url}/nothing`);
    await app.end('SIGTERM');
    const lines = app.lines();
    expect(app.output.stderr).toBe('');
    expect(lines).toContainEqual(expect.objectContaining({ context: 'NestApplication' }));
    expect(lines).toContainEqual(
      expect.objectContaining({ level: 'warn', msg: 'this is old', err: expect.anything() }),
    );
    for (const line of lines) {
      expect(line).toMatchObject({ level: expect.any(String), time: expect.any(String) });
    }
  });

  it('writes human-readable lines in development', async () => {
    const app = await startProcess({ ...variables, NODE_ENV: 'development' });
    await fetch(`${app.url}/api/v1/auth/me`);
    await app.end('SIGTERM');
    expect(app.output.stdout).toMatch(/INFO.*: request \{.*"route":"\/api\/v1\/auth\/me"/);
    expect(app.output.stdout).toMatch(/INFO.*: shutdown complete\n$/);
  });

  it('writes only lines at LOG_LEVEL or above', async () => {
    const app = await startProcess({ ...variables, LOG_LEVEL: 'error' });
    await fetch(`${app.url}/nothing`);
    await app.end('SIGTERM');
    expect(app.output).toEqual({ stdout: '', stderr: '' });
  });

  it('never logs client data, wherever the request carries it', async () => {
    const app = await startProcess({ ...variables, LOG_LEVEL: 'trace' });
    const SECRET = 's3cr3t';
    const encoded = Buffer.from(JSON.stringify({ alg: 'EdDSA', kid: 'one', SECRET })).toString(
      'base64url',
    );
    const tokens = [SECRET, `${encoded}.${encoded}.${encoded}`, `${SECRET}.${SECRET}.${SECRET}`];
    for (const path of ['/health/live', '/health/db', '/api/v1/auth/me', `/none/${SECRET}`]) {
      for (const token of tokens) {
        await fetch(`${app.url}${path}?token=${SECRET}&a%0Ab=${SECRET}`, {
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
      await fetch(`${app.url}/health`, {
        method: 'POST',
        body,
        headers: { 'content-type': 'application/json' },
      });
    }
    await sendRaw(app, `GET /${SECRET} HTTP/1.1\r\nHost: a\r\nno colon ${SECRET}\r\n\r\n`);
    await sendRaw(app, `GET /${SECRET}\u0001 HTTP/1.1\r\nHost: a\r\n\r\n`);
    await app.end('SIGTERM');
    const written = app.output.stdout + app.output.stderr;
    expect(app.lines().filter(({ msg }) => msg === 'request').length).toBeGreaterThan(15);
    expect(written).not.toContain(SECRET);
    expect(written).not.toContain(encoded);
  });

  it('does not let a client forge a log line', async () => {
    const app = await startProcess(variables);
    const forged = '%0A{"level":"info","msg":"forged"}%0D%0A';
    await fetch(`${app.url}/${forged}?${forged}`, { headers: { 'x-request-id': forged } });
    await sendRaw(
      app,
      'GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: a\n{"msg":"forged"}\r\n\r\n',
    );
    await app.end('SIGTERM');
    expect(app.lines().filter(({ msg }) => msg === 'forged')).toEqual([]);
    expect(app.output.stdout).not.toContain('forged');
  });
});

const requestsOf = (app: AppProcess) => app.lines().filter(({ msg }) => msg === 'request');

describe('log lines of anonymous requests', () => {
  it('logs successful probes only with LOG_LEVEL=debug', async () => {
    for (const [LOG_LEVEL, expected] of [
      ['info', 0],
      ['debug', 600],
    ] as const) {
      const app = await startProcess({ ...variables, LOG_LEVEL });
      for (const path of ['/health/live', '/health/db', '/health']) {
        expect(await sendMany(app, 220, path)).toBe(220);
      }
      await app.end('SIGTERM');
      const lines = requestsOf(app);
      expect(lines).toHaveLength(expected);
      expect(lines.filter(({ level }) => level !== 'debug')).toEqual([]);
    }
  });

  it('logs a failed probe', async () => {
    issuer.unavailable = true;
    const app = await startProcess(variables);
    await fetch(`${app.url}/health/ready`);
    issuer.unavailable = false;
    await app.end('SIGTERM');
    expect(requestsOf(app)).toMatchObject([{ level: 'info', route: '/health/ready', status: 503 }]);
  });

  it('limits the lines of successful and of rejected anonymous requests separately', async () => {
    const app = await startProcess(variables);
    expect(await sendMany(app, 640, '/api/v1/docs/page.css')).toBe(640);
    await sendMany(app, 640, '/nothing');
    await fetch(`${app.url}/api/v1/auth/me`);
    await app.end('SIGTERM');
    const statuses = requestsOf(app).map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(600);
    expect(statuses.filter((status) => status === 404)).toHaveLength(600);
    expect(statuses.filter((status) => status === 401)).toHaveLength(1);
  });

  it('limits the lines about bad tokens per reason, so that a flood of one hides no other', async () => {
    const app = await startProcess(variables);
    const send = (authorization: string) =>
      fetch(`${app.url}/api/v1/auth/me`, { headers: { authorization } });
    for (let call = 0; call < 620; call += 1) await send(`Bearer junk${call}`);
    await send('Bearer a.b.c');
    await fetch(`${app.url}/api/v1/auth/me`);
    await app.end('SIGTERM');
    const reasons = app
      .lines()
      .filter(({ event }) => event === 'auth.failed')
      .map(({ code, reason }) => reason ?? code);
    expect(reasons.filter((reason) => reason === 'not-three-parts')).toHaveLength(100);
    expect(reasons.slice(100)).toEqual(['base64url', 'AUTH_MISSING_TOKEN']);
  });
});

const WARN_OFTEN_ON_SIGNAL =
  "data:text/javascript,process.on('SIGUSR2',()=>{for(let%20i=0;i<10000;i++)process.emitWarning('x'.repeat(500))})";
const WARN_ON_SIGNAL =
  "data:text/javascript,process.on('SIGUSR2',()=>process.emitWarning('this%20is%20old'))";

function sendRaw(app: AppProcess, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(app.port, '127.0.0.1', () => socket.write(text));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(answer));
  });
}

const logOutput = (write: (log: ReturnType<typeof createLogger>) => void) => {
  let text = '';
  const log = createLogger(parseEnvironment({ NODE_ENV: 'test' }), {
    write: (line) => (text += line),
  });
  write(log);
  return text;
};
const logInEveryWay = (error: unknown) =>
  logOutput((log) => {
    log.error({ err: error });
    log.error(error);
    log.error({ err: error }, 'with words');
    log.child({ from: 'somewhere' }).error({ err: error });
    log.error(new Error('outer', { cause: error }));
    log.error(new AggregateError([new Error('one'), error], 'several'));
    log.error(new Error('outer', { cause: new AggregateError([error]) }));
  });

const errorOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

describe('logged errors', () => {
  it('logs the code and the place of a database error but no value', async () => {
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
    const errors = await Promise.all([
      errorOf(add('b')),
      errorOf(em.execute('select ?::uuid', ['s3cr3t'])),
      errorOf(em.getConnection().execute('select s3cr3t from "user"')),
      errorOf(em.findOneOrFail(User, { email: 's3cr3t' })),
    ]);
    await orm.close();
    expect(errors[0]).toBeInstanceOf(UniqueConstraintViolationException);
    for (const failure of errors) {
      expect(failure).toBeInstanceOf(Object);
      const text = logInEveryWay(failure);
      expect(text).not.toContain('s3cr3t');
      expect(text.trim().split('\n')).toHaveLength(7);
    }
    expect(JSON.parse(logOutput((log) => log.error({ err: errors[0] })))).toMatchObject({
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

  it('does not log the text that a parser quotes in its error', () => {
    let failure: unknown;
    try {
      JSON.parse('{"password":"s3cr3t');
      JSON.parse('s3cr3t');
    } catch (error) {
      failure = error;
    }
    expect(logInEveryWay(failure)).not.toContain('s3cr3t');
  });

  it('logs the messages of an error of Gatehouse and of its causes', () => {
    const error = new Error('above', { cause: new TypeError('below') });
    expect(JSON.parse(logOutput((log) => log.error(error)))).toMatchObject({
      msg: 'above',
      err: { type: 'Error', message: 'above', cause: { type: 'TypeError', message: 'below' } },
    });
  });

  it('removes stack frames that are part of an error message', () => {
    expect(logOutput((log) => log.error(new Error('x\n    at s3cr3t'), 'words'))).not.toMatch(
      /"stack":"[^"]*s3cr3t/,
    );
  });

  it('logs any thrown value in one line', () => {
    const circular = new Error('circular');
    circular.cause = circular;
    for (const thrown of ['a text', 42, null, undefined, {}, circular]) {
      expect(
        logOutput((log) => log.error({ err: thrown }))
          .trim()
          .split('\n'),
      ).toHaveLength(1);
    }
  });
});
