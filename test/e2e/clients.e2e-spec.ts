import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { Throttle } from '@nestjs/throttler';
import { type RunningApp, startApp } from '../support/test-app.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import {
  createGatehouse,
  type Gatehouse,
  type GatehouseOptions,
  orThrow,
  ProblemError,
} from '@gatehouse/client';
import {
  greet,
  mySessions,
  namesOf,
  rename,
  signOutElsewhere,
  signOutFrom,
} from '../docs/client.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';

@Controller('seldom')
class SeldomController {
  @Get()
  @Throttle({ default: { limit: 1, ttl: 1000 } })
  read() {
    return { title: 'once a second' };
  }
}

@Module({ controllers: [SeldomController] })
class SeldomModule {}

let stack: Stack;
let server: RunningApp;
beforeAll(async () => {
  stack = await startStack({ expirationTime: '4s' });
  server = await startApp(
    {
      DATABASE_URL: stack.database.url,
      BETTER_AUTH_URL: stack.auth.origin,
      JWT_LEEWAY_SECONDS: '0',
    },
    { modules: [SeldomModule] },
  );
});
afterAll(async () => {
  await server.close();
  await stack.end();
});

/** Returns a signed-in client. A header carries the session, as a cookie does in a browser. */
function clientOf(session: string, options: Partial<GatehouseOptions> = {}): Gatehouse {
  return createGatehouse({
    api: server.url,
    auth: `${stack.authWithSid.url}/api/auth`,
    signedIn: credentials(session),
    ...options,
  });
}

const credentials = (session: string) => ({ headers: { authorization: `Bearer ${session}` } });

interface CallOptions {
  body?: object | undefined;
  ifMatch?: string;
  signal?: AbortSignal;
}

/** Calls any method and path, also those that are not in the types. */
function call(client: Gatehouse, method: string, path: string, options: CallOptions = {}) {
  const { ifMatch, ...init } = options;
  const headers = ifMatch === undefined ? {} : { 'if-match': ifMatch };
  const request = client.request as (...parts: unknown[]) => Parameters<typeof orThrow>[0];
  return orThrow(request(method, path, { ...init, headers }));
}

async function newAdmin(): Promise<TestUser> {
  const admin = await signUp(stack.authWithSid, 'Admin');
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
  return admin;
}

/** Locks the row of a user. The returned function releases it. */
async function lockRow({ id }: TestUser): Promise<() => Promise<unknown>> {
  await stack.database.sql('begin');
  await stack.database.sql('select 1 from "user" where id = $1 for update', [id]);
  return () => stack.database.sql('commit');
}

/** Counts the requests refused with `code`, from line `from` of the log. */
const refusals = (code: string, from = 0) =>
  server.lines.slice(from).filter((line) => line['msg'] === 'request' && line['code'] === code)
    .length;

/** Counts the completed requests of a method, from line `from` of the log. */
const requests = (method: string, from: number) =>
  server.lines.slice(from).filter((line) => line['msg'] === 'request' && line['method'] === method)
    .length;

const reasonOf = (error: unknown) => error;

interface CountingServer {
  url: string;
  requests: number;
  close(): void;
}

/** Starts an HTTP server that counts its requests. It is a proxy, or replaces a server. */
async function startCountingServer(
  handle: (request: IncomingMessage, response: ServerResponse) => unknown,
): Promise<CountingServer> {
  const listener = createServer((request, response) => {
    proxy.requests += 1;
    void handle(request, response);
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const proxy: CountingServer = {
    url: `http://127.0.0.1:${(listener.address() as AddressInfo).port}`,
    requests: 0,
    close: () => {
      listener.closeAllConnections();
      listener.close();
    },
  };
  return proxy;
}

it('has the same client code in docs/clients.md and test/docs/client.ts', () => {
  const blocks = readFileSync('docs/clients.md', 'utf8').matchAll(/```ts\n(.*?)```\n/gs);
  const shown = [...blocks].map(([, code]) => code).join('\n');
  expect(shown).toBe(readFileSync('test/docs/client.ts', 'utf8'));
});

it('fetches a token, reuses it, and fetches another when it has expired', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  const from = server.lines.length;
  expect(await greet(client)).toBe('Hello, Ada Lovelace.');
  expect(await greet(client)).toBe('Hello, Ada Lovelace.');
  const { iat, exp } = claimsOf(ada.token);
  await sleep((Number(exp) - Number(iat) + 1) * 1000);
  expect(await greet(client)).toBe('Hello, Ada Lovelace.');
  expect(refusals('AUTH_TOKEN_EXPIRED', from)).toBe(1);
});

it('asks the user to sign in again when the session has ended, with or without a cached token', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  await greet(client);
  await stack.authWithSid.signOut(ada.session);
  await until(() => greet(client), 'Please sign in again.');
  expect(await greet(clientOf(ada.session))).toBe('Please sign in again.');
});

it('shows a banned user the reason and the end of the ban', async () => {
  const [ada, admin] = [await signUp(stack.authWithSid), await newAdmin()];
  const client = clientOf(ada.session);
  await greet(client);
  const ban = (body: { reason?: string; expiresAt?: string }) =>
    orThrow(
      clientOf(admin.session).POST('/api/v1/users/{id}/ban', {
        params: { path: { id: ada.id } },
        body,
      }),
    );
  await ban({ reason: 'Spam' });
  expect(await greet(client)).toBe('You are banned until further notice: Spam.');
  const expiresAt = new Date(Date.now() + 60_000).toISOString();
  await ban({ expiresAt });
  expect(await greet(client)).toBe(`You are banned until ${expiresAt}: no reason given.`);
});

it('does not overwrite a concurrent change', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  const from = server.lines.length;
  const namesRead: string[] = [];
  const release = await lockRow(ada);
  const renames = ['a', 'b'].map((letter) =>
    rename(client, ada.id, (name) => {
      namesRead.push(name);
      return `${name} ${letter}`;
    }),
  );
  // Both have read the same version before either can change it.
  await until(() => namesRead.length, 2);
  await release();
  const names = (await Promise.all(renames)).map(({ name }) => name);
  expect(refusals('PRECONDITION_FAILED', from)).toBe(1);
  expect(namesRead).toEqual([
    'Ada Lovelace',
    'Ada Lovelace',
    expect.stringMatching(/^Ada Lovelace .$/),
  ]);
  expect(names.map((name) => name.split(' ').length).toSorted((a, b) => a - b)).toEqual([3, 4]);
});

it('repeats a request after the Retry-After of a 429', async () => {
  const client = clientOf((await signUp(stack.authWithSid)).session);
  await call(client, 'GET', '/api/v1/seldom');
  const from = server.lines.length;
  expect(await call(client, 'GET', '/api/v1/seldom')).toEqual({ title: 'once a second' });
  expect(refusals('RATE_LIMITED', from)).toBe(1);
});

const statusOf = (call: Promise<unknown>) =>
  call.then(
    () => 200,
    (error: unknown) => (error as ProblemError).problem.status,
  );

describe('retries after a 503', () => {
  it('repeats an idempotent request after a 503', async () => {
    const [ada, admin] = [await signUp(stack.authWithSid), await newAdmin()];
    const from = server.lines.length;
    const release = await lockRow(ada);
    const changed = call(clientOf(admin.session), 'PUT', `/api/v1/users/${ada.id}/role`, {
      body: { role: 'admin' },
    });
    await until(() => refusals('SERVICE_UNAVAILABLE', from), 1);
    await release();
    expect(await changed).toMatchObject({ role: 'admin' });
  });

  it.each([
    ['POST', 'ban', { body: {} }],
    ['PATCH', '', { body: { name: 'Once' } }],
    // The first request may have succeeded. A repetition would get a 412 for its change.
    ['PUT', 'role', { body: { role: 'admin' }, ifMatch: '*' }],
  ])(
    'does not repeat a %s of users/{id}/%s after a 503, because it may have succeeded',
    async (method, path, options) => {
      const [ada, admin] = [await signUp(stack.authWithSid), await newAdmin()];
      const from = server.lines.length;
      const release = await lockRow(ada);
      const address = `/api/v1/users/${ada.id}/${path}`.replace(/\/$/, '');
      expect(await statusOf(call(clientOf(admin.session), method, address, options))).toBe(503);
      await release();
      expect(requests(method, from)).toBe(1);
    },
  );
});

it('throws an error with all members of the problem', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  const from = server.lines.length;
  const failing = (method: string, path: string, body?: object) =>
    call(client, method, `/api/v1${path}`, { body }).catch(reasonOf);
  const forbidden = await failing('GET', '/users');
  expect(forbidden).toBeInstanceOf(ProblemError);
  expect(forbidden).toMatchObject({
    name: 'ProblemError',
    message: expect.stringMatching(/^403 AUTH_FORBIDDEN: ./),
    problem: {
      type: 'urn:gatehouse:problem:auth-forbidden',
      title: expect.any(String),
      status: 403,
      detail: expect.stringMatching(/./),
      instance: '/api/v1/users',
      code: 'AUTH_FORBIDDEN',
      requestId: expect.stringMatching(/./),
    },
  });
  expect(await failing('PATCH', `/users/${ada.id}`, { name: '' })).toMatchObject({
    problem: { code: 'VALIDATION_ERROR', errors: [{ field: 'name', message: expect.any(String) }] },
  });
  expect(requests('GET', from)).toBe(1);
});

async function forward({ url, headers }: IncomingMessage, response: ServerResponse) {
  const { authorization = '' } = headers;
  const answer = await fetch(stack.authWithSid.url + url, { headers: { authorization } });
  response.writeHead(answer.status).end(await answer.text());
}

describe('token requests', () => {
  let proxy: CountingServer;
  beforeAll(async () => {
    proxy = await startCountingServer((request, response) => forward(request, response));
  });
  afterAll(() => proxy.close());

  /** Like `clientOf`, but with a counting proxy in front of Better-Auth. */
  const countedClient = (signedIn: RequestInit) =>
    clientOf('', { auth: `${proxy.url}/api/auth`, signedIn });

  it('requests one token for parallel calls, also when the last one has expired', async () => {
    const ada = await signUp(stack.authWithSid);
    const client = countedClient(credentials(ada.session));
    const five = () => Promise.all(Array.from({ length: 5 }, () => greet(client)));
    const before = proxy.requests;
    expect(new Set(await five())).toEqual(new Set(['Hello, Ada Lovelace.']));
    expect(proxy.requests - before).toBe(1);
    const { iat, exp } = claimsOf(ada.token);
    await sleep((Number(exp) - Number(iat) + 1) * 1000);
    const from = server.lines.length;
    expect(new Set(await five())).toEqual(new Set(['Hello, Ada Lovelace.']));
    expect(refusals('AUTH_TOKEN_EXPIRED', from)).toBe(5);
    expect(proxy.requests - before).toBe(2);
  });

  it('drops the token after a 401, so that a new sign-in takes effect at once', async () => {
    const ada = await signUp(stack.authWithSid);
    const signedIn = credentials(ada.session);
    const client = countedClient(signedIn);
    await greet(client);
    await stack.authWithSid.signOut(ada.session);
    await until(() => greet(client), 'Please sign in again.');
    const { sessionToken } = await stack.authWithSid.signIn(ada);
    Object.assign(signedIn, credentials(sessionToken));
    const from = server.lines.length;
    expect(await greet(client)).toBe('Hello, Ada Lovelace.');
    expect(requests('GET', from)).toBe(1);
  });

  it('drops the token on demand when another user signs in', async () => {
    const [ada, grace] = [
      await signUp(stack.authWithSid),
      await signUp(stack.authWithSid, 'Grace Hopper'),
    ];
    const signedIn = credentials(ada.session);
    const client = countedClient(signedIn);
    await greet(client);
    Object.assign(signedIn, credentials(grace.session));
    client.forgetToken();
    expect(await greet(client)).toBe('Hello, Grace Hopper.');
  });

  it('continues a shared token request when one of its callers aborts', async () => {
    const client = countedClient(credentials((await signUp(stack.authWithSid)).session));
    const aborted = new AbortController();
    const before = proxy.requests;
    const first = call(client, 'GET', '/api/v1/auth/me', { signal: aborted.signal }).catch(
      reasonOf,
    );
    const second = greet(client);
    aborted.abort('enough');
    expect(await first).toBe('enough');
    expect(await second).toBe('Hello, Ada Lovelace.');
    expect(proxy.requests - before).toBe(1);
  });
});

// Gatehouse itself never sends these responses, but a proxy in front of it may.
describe('responses of a proxy', () => {
  let answer: { status: number; headers?: Record<string, string>; body?: string };
  let proxy: CountingServer;
  let client: Gatehouse;
  beforeAll(async () => {
    proxy = await startCountingServer((_request, response) =>
      response.writeHead(answer.status, answer.headers).end(answer.body),
    );
    const { session } = await signUp(stack.authWithSid);
    client = clientOf(session, { api: proxy.url });
  });
  afterAll(() => proxy.close());

  it('accepts a response without a body', async () => {
    answer = { status: 204 };
    expect(await call(client, 'DELETE', '/things/1')).toBeUndefined();
  });

  it.each([
    [502, '<h1>Bad gateway</h1>'],
    [500, ''],
    [404, 'null'],
    [400, '{"message":"no"}'],
    [200, '<h1>Welcome to this network</h1>'],
  ])('turns a response of status %d with the body %j into a problem', async (status, body) => {
    answer = { status, body };
    const before = proxy.requests;
    expect(await call(client, 'GET', '/things').catch(reasonOf)).toMatchObject({
      name: 'ProblemError',
      problem: {
        status,
        code: 'UNEXPECTED_RESPONSE',
        title: `HTTP ${status}`,
        instance: '/things',
      },
    });
    expect(proxy.requests - before).toBe(1);
  });

  it('renews the token only once after a 401 of any method', async () => {
    answer = { status: 401 };
    const before = proxy.requests;
    for (const method of ['GET', 'POST']) {
      expect(await call(client, method, '/things').catch(reasonOf)).toMatchObject({
        problem: { status: 401 },
      });
    }
    expect(proxy.requests - before).toBe(4);
  });

  it('sends a request at most three times', async () => {
    answer = { status: 429, headers: { 'retry-after': '0' } };
    const before = proxy.requests;
    expect(await call(client, 'POST', '/things').catch(reasonOf)).toMatchObject({
      problem: { status: 429 },
      retryAfterSeconds: 0,
    });
    expect(proxy.requests - before).toBe(3);
  });

  it('does not retry when Retry-After exceeds 30 seconds', async () => {
    answer = { status: 503, headers: { 'retry-after': '31' } };
    const before = proxy.requests;
    expect(await call(client, 'GET', '/things').catch(reasonOf)).toMatchObject({
      problem: { status: 503 },
      retryAfterSeconds: 31,
    });
    expect(proxy.requests - before).toBe(1);
  });

  it('stops waiting for a retry when the caller aborts', async () => {
    answer = { status: 503, headers: { 'retry-after': '30' } };
    const before = proxy.requests;
    const aborted = new AbortController();
    const waiting = call(client, 'GET', '/things', { signal: aborted.signal }).catch(reasonOf);
    await until(() => proxy.requests - before, 1);
    // By now the response has arrived, and the client waits to retry.
    await sleep(200);
    aborted.abort('enough');
    expect(await waiting).toBe('enough');
    expect(proxy.requests - before).toBe(1);
  });
});

it('iterates over all users, those that match a search, and audit events', async () => {
  const client = clientOf((await newAdmin()).session);
  await stack.database.sql(`insert into "user" (id, name, email, "emailVerified", "updatedAt")
    select 'w' || n, 'Walker ' || n, 'w' || n || '@example.com', false, now() from generate_series(1, 250) n`);
  const found = await namesOf(client, 'walker');
  expect(found).toHaveLength(250);
  expect(new Set(found).size).toBe(250);
  let all = 0;
  for await (const _ of client.each('/api/v1/users')) all += 1;
  expect(all).toBeGreaterThan(250);
  for (const name of ['Walker one', 'Walker two', 'Walker three']) {
    await rename(client, 'w1', () => name);
  }
  const names: unknown[] = [];
  for await (const { after } of client.each('/api/v1/audit-events', {
    targetUserId: 'w1',
    limit: 2,
  })) {
    names.push(after?.['name']);
  }
  expect(names).toEqual(['Walker three', 'Walker two', 'Walker one']);
});

it('throws the problem of a list', async () => {
  const client = clientOf((await signUp(stack.authWithSid)).session);
  expect(await namesOf(client, 'walker').catch(reasonOf)).toMatchObject({
    problem: { code: 'AUTH_FORBIDDEN' },
  });
});

it('notifies the application once for each end of the session', async () => {
  const ada = await signUp(stack.authWithSid);
  const signedIn = credentials(ada.session);
  let ends = 0;
  const client = clientOf('', { signedIn, signedOut: () => (ends += 1) });
  const five = () => Promise.all(Array.from({ length: 5 }, () => greet(client)));
  await five();
  expect(ends).toBe(0);
  await stack.authWithSid.signOut(ada.session);
  await until(() => greet(client), 'Please sign in again.');
  await five();
  expect(ends).toBe(1);
  const { sessionToken } = await stack.authWithSid.signIn(ada);
  Object.assign(signedIn, credentials(sessionToken));
  await five();
  await stack.authWithSid.signOut(sessionToken);
  await until(() => greet(client), 'Please sign in again.');
  await until(() => ends, 2);
});

it('lists and revokes the sessions of the signed-in user', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  const signInAgain = async () => (await stack.authWithSid.signIn(ada)).sessionToken;
  const [phone, laptop] = [await signInAgain(), await signInAgain()];
  const sessions = await mySessions(client, ada.id);
  expect(sessions.map(({ current }) => current)).toEqual([false, false, true]);
  await signOutFrom(client, ada.id, sessions[0]?.id ?? '');
  expect(await greet(clientOf(laptop))).toBe('Please sign in again.');
  await signOutFrom(client, ada.id, sessions[0]?.id ?? '');
  expect(await greet(clientOf(phone))).toBe('Hello, Ada Lovelace.');
  await signOutElsewhere(client, ada.id);
  expect(await greet(clientOf(phone))).toBe('Please sign in again.');
  expect((await mySessions(client, ada.id)).map(({ current }) => current)).toEqual([true]);
});

it('sends a token to no other origin, and no path parameter that changes the route', async () => {
  const ada = await signUp(stack.auth);
  const client = clientOf(ada.session);
  const elsewhere = { baseUrl: 'http://127.0.0.1.example.com' };
  for (const api of [server.url, 'http://127.0.0.1']) {
    const other = clientOf(ada.session, { api });
    await expect(other.GET('/api/v1/auth/me', elsewhere)).rejects.toThrow('Not a URL of the API');
  }
  for (const sessionId of ['.', '..']) {
    const params = { path: { id: ada.id, sessionId } };
    const path = '/api/v1/users/{id}/sessions/{sessionId}';
    await expect(client.DELETE(path, { params })).rejects.toThrow('Invalid path parameter');
  }
  expect((await client.GET('/api/v1/auth/me')).data?.id).toBe(ada.id);
});
