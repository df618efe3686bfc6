import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { findFreePort } from '../../tools/ports.ts';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { type TestUser, signUp } from '../support/users.js';
import { createDatabase, type TestDatabase, withDirectUrl } from '../support/database.js';
import { killProcesses, startProcess, type AppProcess, until } from '../support/app-process.js';

let database: TestDatabase;
let issuer: BetterAuth;
let ada: TestUser;

beforeAll(async () => {
  database = await createDatabase();
  issuer = await startBetterAuth({ databaseUrl: database.url });
  ada = await signUp(issuer);
});

afterAll(async () => {
  killProcesses();
  await issuer.stop();
  await database.drop();
});

const start = (delayMs: number, port?: number): Promise<AppProcess> =>
  startProcess(
    {
      DATABASE_URL: database.url,
      BETTER_AUTH_URL: issuer.origin,
      SHUTDOWN_DELAY_MS: String(delayMs),
    },
    port === undefined ? {} : { port },
  );

const statusOf = async (url: string) => {
  const response = await fetch(url);
  await response.body?.cancel();
  return response.status;
};
const ready = (served: AppProcess) => until(() => statusOf(`${served.url}/health/ready`), 200);

it('shuts down when npm receives SIGTERM', async () => {
  const port = await findFreePort();
  const npm = spawn('npm', ['run', '--silent', 'start:prod'], {
    env: {
      PATH: process.env['PATH'],
      NODE_ENV: 'production',
      PORT: String(port),
      SHUTDOWN_DELAY_MS: '0',
      ...withDirectUrl({ DATABASE_URL: database.url, BETTER_AUTH_URL: issuer.origin }),
    },
    stdio: 'ignore',
    detached: true,
  });
  const url = `http://127.0.0.1:${port}/health/ready`;
  const status = () =>
    fetch(url).then(
      (response) => response.status,
      () => 0,
    );
  try {
    await until(status, 200, 30);
    npm.kill('SIGTERM');
    expect(await once(npm, 'exit')).toEqual([0, null]);
    expect(await status()).toBe(0);
  } finally {
    // Kill the process if npm left it behind.
    if ((await status()) !== 0) process.kill(-Number(npm.pid), 'SIGKILL');
  }
});

/** Starts a request with a body and lets the caller finish the body later. */
async function beginPatch(served: AppProcess) {
  const socket = connect(served.port, '127.0.0.1');
  await once(socket, 'connect');
  let answer = '';
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
  socket.on('error', () => undefined);
  const closed = once(socket, 'close').then(() => answer);
  socket.write(
    `PATCH /api/v1/users/${ada.id} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${ada.token}\r\n`,
  );
  socket.write('Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{');
  await sleep(200);
  return { finish: () => socket.write('}'), closed };
}

describe('shutdown on SIGTERM', () => {
  it('reports not ready at once after SIGTERM while it still serves all other routes', async () => {
    const served = await start(5000);
    await ready(served);
    served.child.kill('SIGTERM');
    await until(() => statusOf(`${served.url}/health/ready`), 503);
    expect(await (await fetch(`${served.url}/health/ready`)).json()).toMatchObject({
      status: 'shutting_down',
    });
    for (const path of ['/health/live', '/health/db', '/health']) {
      const response = await fetch(served.url + path);
      expect([path, response.status]).toEqual([path, 200]);
      expect(response.headers.get('connection')).toBe('close');
      await response.body?.cancel();
    }
    const { code } = await served.end();
    expect(code).toBe(0);
    expect(served.lines().slice(-1)).toEqual([
      expect.objectContaining({ msg: 'shutdown complete' }),
    ]);
    expect(served.output.stderr).toBe('');
  });

  it('finishes a pending request after SIGTERM and then closes its connection', async () => {
    const served = await start(0);
    const patch = await beginPatch(served);
    served.child.kill('SIGTERM');
    await sleep(700);
    patch.finish();
    const response = await patch.closed;
    expect(response).toMatch(/^HTTP\/1\.1 200 [^]*\r\nConnection: close\r\n/);
    expect(await served.end()).toMatchObject({ code: 0 });
    const messages = served.lines().map(({ msg }) => msg);
    expect(messages.slice(-2)).toEqual(['request', 'shutdown complete']);
  });

  it('aborts a request that takes longer than ten seconds after SIGTERM', async () => {
    const served = await start(300);
    const patch = await beginPatch(served);
    const { code, ms } = await served.end('SIGTERM');
    expect(await patch.closed).toBe('');
    expect(code).toBe(0);
    expect(ms).toBeGreaterThan(10_000);
    expect(ms).toBeLessThan(25_000);
    expect(served.lines()).toContainEqual(
      expect.objectContaining({
        msg: 'closing connections with requests still in flight',
        inFlight: 1,
      }),
    );
  });

  it('exits at once on a second SIGTERM', async () => {
    const served = await start(60_000);
    served.child.kill('SIGTERM');
    await sleep(300);
    const { code, ms } = await served.end('SIGTERM');
    expect(code).toBe(1);
    expect(ms).toBeLessThan(30_000);
    expect(served.lines().slice(-1)).toEqual([
      expect.objectContaining({ msg: 'second signal, exiting immediately' }),
    ]);
  });
});

it('skips the shutdown delay for load balancers on SIGINT from a terminal', async () => {
  const served = await start(60_000);
  const { code, ms } = await served.end('SIGINT');
  expect(code).toBe(0);
  expect(ms).toBeLessThan(30_000);
});
