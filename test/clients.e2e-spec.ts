import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, Get, Module } from '@nestjs/common';
import { Throttle } from '@nestjs/throttler';
import { type RunningApp, startApp } from './app.js';
import { claimsOf, type Person, signUp } from './clients.js';
import {
  everyUser,
  Gatehouse,
  greet,
  mySessions,
  Refusal,
  rename,
  signOutElsewhere,
  signOutFrom,
} from './readme/client.js';
import { until } from './served.js';
import { type Stack, startStack } from './stack.js';

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
    [SeldomModule],
  );
});
afterAll(async () => {
  await server.close();
  await stack.end();
});

/** A client of somebody who is signed in, with the session in a header where a browser has a cookie. */
function clientOf(session: string): Gatehouse {
  return new Gatehouse(`${server.url}/api/v1`, `${stack.authWithSid.url}/api/auth`, {
    headers: { authorization: `Bearer ${session}` },
  });
}

async function newAdmin(): Promise<Person> {
  const person = await signUp(stack.authWithSid, 'Admin');
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [person.id]);
  return person;
}

/** Somebody else is about to change the user, until what this resolves with is called. */
async function holdRow({ id }: Person): Promise<() => Promise<unknown>> {
  await stack.database.sql('begin');
  await stack.database.sql('select 1 from "user" where id = $1 for update', [id]);
  return () => stack.database.sql('commit');
}

/** How often a request has been refused so, since `from`. */
const refusals = (code: string, from = 0) =>
  server.lines.slice(from).filter((line) => line['msg'] === 'request' && line['code'] === code)
    .length;

it('is the code that the README shows', () => {
  const [, chapter = ''] = readFileSync('README.md', 'utf8').split('## For clients\n');
  const blocks = chapter.split('\n## ')[0]?.matchAll(/```ts\n(.*?)```\n/gs) ?? [];
  const shown = [...blocks].map(([, code]) => code).join('\n');
  expect(shown).toBe(readFileSync('test/readme/client.ts', 'utf8'));
});

it('fetches a token, keeps it, and fetches another when it has expired', async () => {
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

it('asks to sign in again when the session has ended, with a token in hand and without', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  await greet(client);
  await stack.authWithSid.signOut(ada.session);
  await until(() => greet(client), 'Please sign in again.');
  expect(await greet(clientOf(ada.session))).toBe('Please sign in again.');
});

it('says why and until when somebody is banned', async () => {
  const [ada, admin] = [await signUp(stack.authWithSid), await newAdmin()];
  const client = clientOf(ada.session);
  await greet(client);
  const ban = (body: object) =>
    clientOf(admin.session).call('POST', `/users/${ada.id}/ban`, { body });
  await ban({ reason: 'Spam' });
  expect(await greet(client)).toBe('You are banned until further notice: Spam.');
  const expiresAt = new Date(Date.now() + 60_000).toISOString();
  await ban({ expiresAt });
  expect(await greet(client)).toBe(`You are banned until ${expiresAt}: no reason given.`);
});

it('overwrites nothing that was changed meanwhile', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  const from = server.lines.length;
  const seen: string[] = [];
  const free = await holdRow(ada);
  const both = ['a', 'b'].map((letter) =>
    rename(client, ada.id, (name) => {
      seen.push(name);
      return `${name} ${letter}`;
    }),
  );
  // Both have seen the same version before either can change it.
  await until(() => seen.length, 2);
  await free();
  const names = (await Promise.all(both)).map(({ body }) => body.name);
  expect(refusals('PRECONDITION_FAILED', from)).toBe(1);
  expect(seen).toEqual(['Ada Lovelace', 'Ada Lovelace', expect.stringMatching(/^Ada Lovelace .$/)]);
  expect(names.map((name) => name.split(' ').length).toSorted((a, b) => a - b)).toEqual([3, 4]);
});

it('tries again when it is told to: 429', async () => {
  const client = clientOf((await signUp(stack.authWithSid)).session);
  await client.call('GET', '/seldom');
  const from = server.lines.length;
  expect((await client.call('GET', '/seldom')).body).toEqual({ title: 'once a second' });
  expect(refusals('RATE_LIMITED', from)).toBe(1);
});

it('tries again when it is told to: 503', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  const from = server.lines.length;
  const free = await holdRow(ada);
  const changed = client.call<{ name: string }>('PATCH', `/users/${ada.id}`, {
    body: { name: 'Patient' },
  });
  await until(() => refusals('SERVICE_UNAVAILABLE', from), 1);
  await free();
  expect((await changed).body.name).toBe('Patient');
});

it('does not try again what is refused for good', async () => {
  const client = clientOf((await signUp(stack.authWithSid)).session);
  const from = server.lines.length;
  const refused = client.call('GET', '/users').catch((error: unknown) => error);
  expect(await refused).toBeInstanceOf(Refusal);
  expect(await refused).toMatchObject({ problem: { code: 'AUTH_FORBIDDEN', status: 403 } });
  await until(() => refusals('AUTH_FORBIDDEN', from), 1);
});

it('walks through all users, or those that it looks for', async () => {
  const admin = await newAdmin();
  await stack.database.sql(`insert into "user" (id, name, email, "emailVerified", "updatedAt")
    select 'w' || n, 'Walker', 'w' || n || '@example.com', false, now() from generate_series(1, 250) n`);
  const found: string[] = [];
  for await (const user of everyUser(clientOf(admin.session), { q: 'walker' })) found.push(user.id);
  expect(found).toHaveLength(250);
  expect(new Set(found).size).toBe(250);
  let all = 0;
  for await (const _ of everyUser(clientOf(admin.session))) all += 1;
  expect(all).toBeGreaterThan(250);
});

it('shows and ends own sessions', async () => {
  const ada = await signUp(stack.authWithSid);
  const client = clientOf(ada.session);
  const signInAgain = async () => (await stack.authWithSid.signIn(ada)).sessionToken;
  const [phone, laptop] = [await signInAgain(), await signInAgain()];
  const sessions = await mySessions(client, ada.id);
  expect(sessions.map(({ current }) => current)).toEqual([false, false, true]);
  await signOutFrom(client, ada.id, sessions[0]?.id ?? '');
  expect(await greet(clientOf(laptop))).toBe('Please sign in again.');
  expect(await greet(clientOf(phone))).toBe('Hello, Ada Lovelace.');
  await signOutElsewhere(client, ada.id);
  expect(await greet(clientOf(phone))).toBe('Please sign in again.');
  expect((await mySessions(client, ada.id)).map(({ current }) => current)).toEqual([true]);
});
