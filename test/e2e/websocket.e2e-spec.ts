import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Module } from '@nestjs/common';
import { WsAdapter } from '@nestjs/platform-ws';
import { SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import { WebSocket } from 'ws';
import { ChatModule } from '../docs/chat.js';
import { type Stack, startStack } from '../support/stack.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { signUp } from '../support/users.js';

@WebSocketGateway({ path: '/private' })
class PrivateGateway {
  @SubscribeMessage('name')
  name() {
    return { event: 'name', data: 'never sent' };
  }
}

@Module({ providers: [PrivateGateway] })
class PrivateModule {}

let stack: Stack;
let gatehouse: RunningApp;

beforeAll(async () => {
  stack = await startStack();
  gatehouse = await startApp(
    { DATABASE_URL: stack.database.url, BETTER_AUTH_URL: stack.auth.origin },
    { modules: [ChatModule, PrivateModule] },
    (app) => app.useWebSocketAdapter(new WsAdapter(app)),
  );
});

afterAll(async () => {
  await gatehouse.close();
  await stack.end();
});

/** Opens a connection, asks for the name, and returns the response or the code of the close. */
async function nameOf(path: string, token?: string): Promise<unknown> {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const client = new WebSocket(gatehouse.url.replace('http', 'ws') + path, { headers });
  const closed = once(client, 'close').then(([code]) => code as number);
  const answered = once(client, 'message').then(([data]) => JSON.parse(String(data)) as unknown);
  await once(client, 'open');
  client.send(JSON.stringify({ event: 'name' }));
  const answer = await Promise.race([answered, closed]);
  client.terminate();
  return answer;
}

it('keeps the example gateway identical to the documents', () => {
  const code = readFileSync('test/docs/chat.ts', 'utf8').replaceAll('../../src/', '../');
  expect(readFileSync('docs/nest-developers.md', 'utf8')).toContain(code.trim());
});

it('authenticates a connection when it opens, by AuthService', async () => {
  const ada = await signUp(stack.auth);
  expect(await nameOf('/chat', ada.token)).toEqual({ event: 'name', data: 'Ada Lovelace' });
});

it.each([
  ['no token', async () => undefined],
  ['a forged token', async () => `${(await signUp(stack.auth)).token.slice(0, -10)}AAAAAAAAAA`],
  [
    'a token of a banned user',
    async () => {
      const { id, token } = await signUp(stack.auth);
      await stack.database.sql('update "user" set banned = true where id = $1', [id]);
      return token;
    },
  ],
])('closes a connection with %s', async (_what, tokenOf) => {
  expect(await nameOf('/chat', await tokenOf())).toBe(4401);
});

it('refuses messages of a gateway without @Public(), and logs what to do', async () => {
  const { token } = await signUp(stack.auth);
  expect(await nameOf('/private', token)).toMatchObject({
    event: 'exception',
    data: { status: 'error', message: 'Internal server error' },
  });
  // nestjs-pino keeps the log of the first application in a process.
  expect(JSON.stringify(stack.gatehouse.lines)).toContain('AuthService.authenticate()');
});
