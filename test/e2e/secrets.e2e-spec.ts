import { Controller, Get, Headers, Inject, Module, Res } from '@nestjs/common';
import { EntityManager } from '@mikro-orm/postgresql';
import type { Response } from 'express';
import type { Logger } from 'pino';
import { Public } from '../../src/access/decorators.js';
import { LOG } from '../../src/logging/logger.js';
import { Environment } from '../../src/config/environment.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { type TestUser, signUp } from '../support/users.js';
import { findLeaks } from '../support/leak-detector.js';
import { type Stack, startStack } from '../support/stack.js';

/** Leaks secrets on purpose. All other test files rely on the detection of such leaks. */
@Public()
@Controller('leaks')
class LeakingController {
  constructor(
    @Inject(EntityManager) private readonly em: EntityManager,
    @Inject(LOG) private readonly log: Logger,
    private readonly environment: Environment,
  ) {}

  @Get('session')
  session() {
    return this.em.getConnection().execute('select token from session');
  }

  @Get('account')
  account() {
    return this.em.getConnection().execute('select * from account');
  }

  @Get('header')
  header(@Headers('authorization') authorization: string, @Res() response: Response) {
    response.setHeader('X-Echo', authorization).end();
  }

  @Get('log')
  write(@Headers('authorization') authorization: string) {
    this.log.info({ sent: authorization }, 'asked');
  }

  @Get('database')
  database() {
    return { url: this.environment.DATABASE_URL };
  }
}

@Module({ controllers: [LeakingController] })
class LeakingModule {}

let stack: Stack;
let gatehouse: RunningApp;
let ada: TestUser;

beforeAll(async () => {
  stack = await startStack();
  gatehouse = await startApp(
    { DATABASE_URL: stack.database.url, BETTER_AUTH_URL: stack.auth.origin },
    { modules: [LeakingModule] },
  );
  ada = await signUp(stack.auth);
  await stack.database
    .sql(`insert into account (id, "accountId", "providerId", "userId", "accessToken",
      "refreshToken", "idToken", "updatedAt")
      values ('a', '42', 'github', '${ada.id}', 'an-access-token', 'a-refresh-token', 'an-id-token', now())`);
});

afterAll(async () => {
  await gatehouse.close();
  await stack.end();
});

const send = async (path: string) => {
  const response = await fetch(`${gatehouse.url}/api/v1/${path}`, {
    headers: { authorization: `Bearer ${ada.token}` },
  });
  await response.text();
};

const byName = (a: string, b: string) => a.localeCompare(b);
const leaked = async () =>
  (await findLeaks()).map((leak) => leak.split(', after ')[0] ?? '').toSorted(byName);

it.each([
  ['session', ['session.token in a response']],
  [
    'account',
    [
      'account.accessToken in a response',
      'account.idToken in a response',
      'account.password in a response',
      'account.refreshToken in a response',
    ],
  ],
  [
    'header',
    [
      'part 1 of a JWT in a response',
      'part 2 of a JWT in a response',
      'part 3 of a JWT in a response',
    ],
  ],
  [
    'log',
    ['part 1 of a JWT in the log', 'part 2 of a JWT in the log', 'part 3 of a JWT in the log'],
  ],
  ['database', ['the password of DATABASE_URL in a response']],
])('detects the secrets that /leaks/%s leaks', async (path, found) => {
  await send(`leaks/${path}`);
  expect(await leaked()).toEqual(found);
});

it('detects no secret in ordinary responses', async () => {
  await send('auth/session');
  await send('auth/accounts');
  expect(await leaked()).toEqual([]);
});
