import { ApolloDriver, type ApolloDriverConfig } from '@nestjs/apollo';
import { type MiddlewareConsumer, Module, type NestModule } from '@nestjs/common';
import { Args, GraphQLModule, Query, Resolver } from '@nestjs/graphql';
import { SkipThrottle, Throttle } from '@nestjs/throttler';
import { GraphQLError } from 'graphql';
import { CurrentUser, Public, Roles, SelfOrAdmin } from '../../src/access/decorators.js';
import { JsonBodyMiddleware } from '../../src/http/json-body.middleware.js';
import type { UserRow } from '../../src/access/principal.js';
import { type Stack, startStack } from '../support/stack.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { signUp } from '../support/users.js';

@Resolver()
class NotesResolver {
  @Query(() => String)
  mine(@CurrentUser() me: UserRow) {
    return `The notes of ${me.name}`;
  }

  @Query(() => String)
  @Public()
  motto() {
    return 'Trust, but look it up';
  }

  @Query(() => String)
  @Roles('admin')
  statistics() {
    return '42 notes';
  }

  @Query(() => String)
  @SelfOrAdmin('userId')
  of(@Args('userId') userId: string) {
    return `The notes of ${userId}`;
  }

  @Query(() => String)
  @Throttle({ default: { limit: 1, ttl: 60_000 } })
  rare() {
    return 'once a minute';
  }

  @Query(() => String)
  @SkipThrottle()
  broken(): string {
    throw new Error('select secret from nowhere');
  }

  @Query(() => String)
  refused(): string {
    throw new GraphQLError('The note is locked.', { extensions: { code: 'LOCKED' } });
  }
}

@Module({
  imports: [
    GraphQLModule.forRoot<ApolloDriverConfig>({
      driver: ApolloDriver,
      autoSchemaFile: true,
      includeStacktraceInErrorResponses: false,
    }),
  ],
  providers: [NotesResolver],
})
class NotesModule implements NestModule {
  configure(consumer: MiddlewareConsumer) {
    consumer.apply(JsonBodyMiddleware).forRoutes('/graphql');
  }
}

let stack: Stack;
let gatehouse: RunningApp;

beforeAll(async () => {
  stack = await startStack();
  gatehouse = await startApp(
    { DATABASE_URL: stack.database.url, BETTER_AUTH_URL: stack.auth.origin, CHANGE_FEED: 'off' },
    { modules: [NotesModule] },
  );
});

afterAll(async () => {
  await gatehouse.close();
  await stack.end();
});

interface Answer {
  data: Record<string, unknown> | null;
  errors?: { message: string; extensions: Record<string, unknown> }[];
}

async function ask(query: string, token?: string) {
  const response = await fetch(`${gatehouse.url}/graphql?from=test`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify({ query }),
  });
  const { data, errors } = (await response.json()) as Answer;
  return { headers: response.headers, result: errors?.[0]?.extensions['code'] ?? data, errors };
}

const resultOf = async (query: string, token?: string) => (await ask(query, token)).result;

it('requires a token for a resolver without decorators and provides the current user', async () => {
  const ada = await signUp(stack.auth);
  expect(await resultOf('{ mine }')).toBe('AUTH_MISSING_TOKEN');
  expect(await resultOf('{ mine }', 'forged')).toBe('AUTH_TOKEN_INVALID');
  expect(await resultOf('{ mine }', ada.token)).toEqual({ mine: 'The notes of Ada Lovelace' });
});

it('authenticates each field of a query that has several', async () => {
  const ada = await signUp(stack.auth);
  expect(await resultOf('{ mine again: mine }', ada.token)).toEqual({
    mine: 'The notes of Ada Lovelace',
    again: 'The notes of Ada Lovelace',
  });
  expect(await resultOf('{ motto mine }')).toBe('AUTH_MISSING_TOKEN');
});

it('resolves a @Public() field without a token', async () => {
  expect(await resultOf('{ motto }')).toEqual({ motto: 'Trust, but look it up' });
});

it('requires the role of a field, and the own id of an argument', async () => {
  const [ada, bob] = [await signUp(stack.auth), await signUp(stack.auth)];
  const ofAda = `{ of(userId: "${ada.id}") }`;
  expect(await resultOf('{ statistics }', bob.token)).toBe('AUTH_FORBIDDEN');
  expect(await resultOf(ofAda, bob.token)).toBe('AUTH_FORBIDDEN');
  expect(await resultOf(ofAda, ada.token)).toEqual({ of: `The notes of ${ada.id}` });
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [bob.id]);
  expect(await resultOf('{ statistics }', bob.token)).toEqual({ statistics: '42 notes' });
  expect(await resultOf(ofAda, bob.token)).toEqual({ of: `The notes of ${ada.id}` });
});

it('refuses the token of a user who was banned', async () => {
  const ada = await signUp(stack.auth);
  expect(await resultOf('{ mine }', ada.token)).toEqual({ mine: 'The notes of Ada Lovelace' });
  await stack.database.sql('update "user" set banned = true where id = $1', [ada.id]);
  expect(await resultOf('{ mine }', ada.token)).toBe('USER_BANNED');
});

it('counts fields as requests, and applies @Throttle()', async () => {
  const ada = await signUp(stack.auth);
  const { headers } = await ask('{ mine }', ada.token);
  expect(headers.get('ratelimit')).toMatch(/^"user";r=999999;/);
  expect(await resultOf('{ rare }', ada.token)).toEqual({ rare: 'once a minute' });
  expect(await resultOf('{ rare }', ada.token)).toBe('RATE_LIMITED');
});

it('logs an internal error in full, but does not return its message to the client', async () => {
  const ada = await signUp(stack.auth);
  const { result, errors } = await ask('{ broken }', ada.token);
  expect(result).toBe('INTERNAL_ERROR');
  expect(JSON.stringify(errors)).not.toContain('secret');
  expect(JSON.stringify(gatehouse.lines)).toContain('select secret from nowhere');
});

it('returns the errors that a resolver throws for the client unchanged', async () => {
  const ada = await signUp(stack.auth);
  const { errors } = await ask('{ refused }', ada.token);
  expect(errors).toMatchObject([
    { message: 'The note is locked.', extensions: { code: 'LOCKED' } },
  ]);
});
