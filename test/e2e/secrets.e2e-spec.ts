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

/** A Gatehouse that cannot keep a secret: every other test file relies on these being found. */
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
    [LeakingModule],
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

const ask = async (path: string) => {
  const answer = await fetch(`${gatehouse.url}/api/v1/${path}`, {
    headers: { authorization: `Bearer ${ada.token}` },
  });
  await answer.text();
};

const byName = (a: string, b: string) => a.localeCompare(b);
const leaked = async () =>
  (await findLeaks()).map((leak) => leak.split(', after ')[0] ?? '').toSorted(byName);

it.each([
  ['session', ['session.token in an answer']],
  [
    'account',
    [
      'account.accessToken in an answer',
      'account.idToken in an answer',
      'account.password in an answer',
      'account.refreshToken in an answer',
    ],
  ],
  [
    'header',
    [
      'part 1 of a JWT in an answer',
      'part 2 of a JWT in an answer',
      'part 3 of a JWT in an answer',
    ],
  ],
  [
    'log',
    ['part 1 of a JWT in the log', 'part 2 of a JWT in the log', 'part 3 of a JWT in the log'],
  ],
  ['database', ['the password of DATABASE_URL in an answer']],
])('finds what /leaks/%s tells', async (path, found) => {
  await ask(`leaks/${path}`);
  expect(await leaked()).toEqual(found);
});

it('finds nothing where nothing is told', async () => {
  await ask('auth/session');
  await ask('auth/accounts');
  expect(await leaked()).toEqual([]);
});
