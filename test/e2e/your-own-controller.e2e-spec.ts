import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import {
  BadRequestException,
  Controller,
  Get,
  Header,
  HttpCode,
  HttpException,
  Module,
  NotFoundException,
  Param,
  UnauthorizedException,
} from '@nestjs/common';
import {
  Public,
  RequirePermissions,
  RequireVerifiedEmail,
  Roles,
  SelfOrAdmin,
} from '../../src/access/decorators.js';
import { createDocument } from '../../src/openapi/document.js';
import { registerProblems } from '../../src/problems/problem.js';
import { type RunningApp, startApp } from '../support/test-app.js';
import { type TestUser, signUp } from '../support/users.js';
import { writePermissions } from '../support/permissions-file.js';
import { NotesModule } from '../docs/notes.js';
import { PaymentsController } from '../docs/payments.js';
import { type Stack, startStack } from '../support/stack.js';

@Public()
@Controller('notes/open')
class OpenController {
  @Get('all')
  all() {
    return { title: 'for all' };
  }

  @Get('admins')
  @Roles('admin')
  admins() {
    return { title: 'for admins' };
  }

  @Get('verified')
  @RequireVerifiedEmail()
  verified() {
    return { title: 'for the verified' };
  }

  @Get('of/:id')
  @SelfOrAdmin()
  of(@Param('id') id: string) {
    return { title: 'for oneself', id };
  }

  @Get('export/:id')
  @RequirePermissions({ note: ['export'] })
  @SelfOrAdmin()
  export(@Param('id') id: string) {
    return { title: 'for oneself with a permission', id };
  }

  @Get('expired')
  @Roles('user')
  expired(): never {
    throw new UnauthorizedException('for the client');
  }

  @Get('refused/:status')
  refused(@Param('status') status: string): never {
    throw new HttpException('for the client', Number(status));
  }

  @Get('exceptions/list')
  list(): never {
    throw new BadRequestException(['first', 'second']);
  }

  @Get('exceptions/default')
  byDefault(): never {
    throw new NotFoundException();
  }

  @Get('of-its-own-type')
  @Header('Content-Type', 'application/vnd.notes+json')
  typed() {
    return { title: 'typed' };
  }

  @Get('without-content')
  @HttpCode(204)
  empty() {
    return { title: 'never sent' };
  }
}

@Module({ controllers: [OpenController, PaymentsController] })
class OpenModule {}

let stack: Stack;
let gatehouse: RunningApp;
let ada: TestUser;

beforeAll(async () => {
  stack = await startStack();
  gatehouse = await startApp(
    {
      DATABASE_URL: stack.database.url,
      BETTER_AUTH_URL: stack.auth.origin,
      ROLES: 'user,support,admin',
      // The tests change rows by SQL. Without the change feed the next request reads them uncached.
      CHANGE_FEED: 'off',
    },
    { modules: [NotesModule, OpenModule] },
  );
  ada = await signUp(stack.auth);
});

afterAll(async () => {
  await gatehouse.close();
  await stack.end();
});

const request = async (path: string, token?: string, method = 'GET') => {
  const response = await fetch(`${gatehouse.url}/api/v1/notes${path}`, {
    method,
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
  });
  const body = (await response.json()) as { code?: string };
  return [response.status, body.code ?? body] as unknown;
};

it.each(['notes', 'payments'])('keeps the example %s identical to the documents', (name) => {
  const code = readFileSync(`test/docs/${name}.ts`, 'utf8').replaceAll('../../src/', '../');
  expect(readFileSync('docs/nest-developers.md', 'utf8')).toContain(code.trim());
});

it('requires a token for a route without decorators and provides the current user', async () => {
  expect(await request('/mine')).toEqual([401, 'AUTH_MISSING_TOKEN']);
  expect(await request('/mine', ada.token)).toEqual([200, { title: 'The notes of Ada Lovelace' }]);
});

it('serves a @Public() route without a token', async () => {
  expect(await request('/motto')).toEqual([200, { title: 'Trust, but look it up' }]);
});

it('accepts a webhook only with the signature of its body', async () => {
  process.env['PAYMENTS_SECRET'] = 'shared';
  const signed = (body: string) => createHmac('sha256', 'shared').update(body).digest('hex');
  const paid = '{ "id": 1 }';
  const outcomes = [];
  for (const [body, signature] of [
    [paid, signed(paid)],
    [paid, signed('')],
    [paid, 'short'],
    [paid, undefined],
    [undefined, signed(paid)],
  ]) {
    const response = await fetch(`${gatehouse.url}/api/v1/payments`, {
      method: 'POST',
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(signature === undefined ? {} : { 'x-signature': signature }),
      },
      body: body ?? null,
    });
    const text = await response.text();
    const { code } = (text === '' ? {} : JSON.parse(text)) as { code?: string };
    outcomes.push([response.status, code, response.headers.get('www-authenticate')]);
  }
  const refused = [401, 'SIGNATURE_WRONG', null];
  expect(outcomes).toEqual([[204, undefined, null], refused, refused, refused, refused]);
});

it('requires one of the roles of @Roles()', async () => {
  const bob = await signUp(stack.auth, 'Bob');
  expect(await request('/statistics', bob.token)).toEqual([403, 'AUTH_FORBIDDEN']);
  for (const role of ['support', 'user,support', 'admin']) {
    await stack.database.sql('update "user" set role = $1 where id = $2', [role, bob.id]);
    expect(await request('/statistics', bob.token)).toEqual([200, { notes: 42 }]);
  }
});

it('lets only the user and admins use a @SelfOrAdmin() route', async () => {
  const bob = await signUp(stack.auth, 'Bob');
  expect(await request(`/of/${ada.id}`, ada.token)).toEqual([
    200,
    { title: `The notes of ${ada.id}` },
  ]);
  expect(await request(`/of/${ada.id}`, bob.token)).toEqual([403, 'AUTH_FORBIDDEN']);
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [bob.id]);
  expect(await request(`/of/${ada.id}`, bob.token)).toEqual([
    200,
    { title: `The notes of ${ada.id}` },
  ]);
});

it('requires the permissions of @RequirePermissions() and tells a route what a user can do', async () => {
  const bob = await signUp(stack.auth, 'Bob');
  const remove = async (app: RunningApp) => {
    const headers = { authorization: `Bearer ${bob.token}` };
    const { status, body } = await app.http.delete('/api/v1/notes/old').set(headers);
    return [status, body.missing ?? body] as unknown;
  };
  expect(await remove(gatehouse)).toEqual([403, { note: ['delete'] }]);
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [bob.id]);
  expect(await remove(gatehouse)).toEqual([200, { deleted: 0, mayBanAuthors: true }]);

  const withFile = await startApp(
    {
      DATABASE_URL: stack.database.url,
      BETTER_AUTH_URL: stack.auth.origin,
      CHANGE_FEED: 'off',
      ...writePermissions({ admin: { user: ['ban'] }, editor: { note: ['delete'] } }),
    },
    { modules: [NotesModule] },
  );
  try {
    expect(await remove(withFile)).toEqual([403, { note: ['delete'] }]);
    await stack.database.sql(`update "user" set role = 'user,editor' where id = $1`, [bob.id]);
    expect(await remove(withFile)).toEqual([200, { deleted: 0, mayBanAuthors: false }]);
    const { paths } = createDocument(withFile.app);
    expect(paths['/api/v1/notes/old']?.delete).toMatchObject({
      'x-required-permissions': { note: ['delete'] },
      description: 'Requires `note:delete`.',
    });
  } finally {
    await withFile.close();
  }
});

it.each([{}, { note: [] }, { note: ['read'], user: [] }])(
  'refuses a required permission without an action: %j',
  (required) => {
    expect(() => RequirePermissions(required)).toThrow(/at least one action/);
  },
);

it('requires a verified email address for a @RequireVerifiedEmail() route', async () => {
  const bob = await signUp(stack.auth, 'Bob');
  expect(await request('', bob.token, 'POST')).toEqual([403, 'EMAIL_NOT_VERIFIED']);
  await stack.database.sql('update "user" set "emailVerified" = true where id = $1', [bob.id]);
  expect(await request('', bob.token, 'POST')).toEqual([201, { writtenBy: bob.id }]);
});

it('applies the decorators of a route in a @Public() controller', async () => {
  expect(await request('/open/all')).toEqual([200, { title: 'for all' }]);
  const paths = ['admins', 'verified', `of/${ada.id}`, `export/${ada.id}`];
  for (const path of paths) {
    expect(await request(`/open/${path}`)).toEqual([401, 'AUTH_MISSING_TOKEN']);
  }
  expect(await request('/open/admins', ada.token)).toEqual([403, 'AUTH_FORBIDDEN']);
  // Every rule of the route must be met, not only one.
  expect(await request(`/open/export/${ada.id}`, ada.token)).toEqual([403, 'AUTH_FORBIDDEN']);
  const { paths: documented } = createDocument(gatehouse.app);
  expect(documented['/api/v1/notes/open/all']?.get?.security).toEqual([]);
  expect(documented['/api/v1/notes/open/admins']?.get?.security).toEqual([{ bearer: [] }]);
});

it('documents the routes of an application from their decorators', () => {
  const { paths } = createDocument(gatehouse.app);
  const summary = Object.entries(paths)
    .filter(([path]) => path.startsWith('/api/v1/notes') && !path.includes('/open/'))
    .flatMap(([path, operations]) =>
      Object.entries(operations as Record<string, { security: object[]; responses: object }>).map(
        ([method, { security, responses }]) =>
          `${method} ${path.slice(13)} ${security.length > 0 ? 'token' : 'open'} ${Object.keys(responses).join()}`,
      ),
    );
  expect(summary.toSorted()).toEqual([
    'delete /old token 200,400,401,403,429,500,503',
    'get /mine token 200,400,401,403,429,500,503',
    'get /motto open 200,400,429,500,503',
    'get /of/{userId} token 200,400,401,403,429,500,503',
    'get /statistics token 200,400,401,403,429,500,503',
    'post  token 201,400,401,403,429,500,503',
  ]);
  const text = JSON.stringify(paths);
  expect(text).toContain('EMAIL_NOT_VERIFIED');
  expect(text).not.toContain('x-problem');
  // Descriptions of parameters such as `id` belong to the routes of Gatehouse only.
  const own = JSON.stringify(paths['/api/v1/notes/open/of/{id}']);
  expect(own).not.toContain('as Better-Auth created it');
  expect(JSON.stringify(paths['/api/v1/users/{id}'])).toContain('as Better-Auth created it');
});

it('documents an error code that a module registers', () => {
  registerProblems({ NOTE_LOCKED: { status: 409, title: 'Locked', meaning: 'Unlock it first.' } });
  const { ErrorResponse } = createDocument(gatehouse.app).components?.schemas ?? {};
  expect(ErrorResponse).toMatchObject({
    properties: { code: { enum: expect.arrayContaining(['NOT_FOUND', 'NOTE_LOCKED']) } },
  });
});

const getOpen = async (path: string, method = 'GET') => {
  const response = await fetch(`${gatehouse.url}/api/v1/notes/open/${path}`, { method });
  const header = (name: string) => response.headers.get(name);
  return [response.status, header('content-type'), header('content-length'), await response.text()];
};

it.each([
  [400, 400, 'MALFORMED_REQUEST'],
  // The route is public, so a wrong signature is not an invalid token.
  [401, 401, 'CLIENT_ERROR'],
  [402, 402, 'CLIENT_ERROR'],
  [403, 403, 'AUTH_FORBIDDEN'],
  [404, 404, 'NOT_FOUND'],
  [409, 409, 'CONFLICT'],
  [412, 412, 'PRECONDITION_FAILED'],
  [422, 422, 'UNPROCESSABLE'],
  [410, 410, 'CLIENT_ERROR'],
  [429, 429, 'RATE_LIMITED'],
  [501, 500, 'INTERNAL_ERROR'],
  [503, 503, 'SERVICE_UNAVAILABLE'],
])(
  "converts Nest's exception with status %s to a problem with status %s and code %s",
  async (thrown, status, code) => {
    const response = await fetch(`${gatehouse.url}/api/v1/notes/open/refused/${thrown}`);
    const body = (await response.json()) as { status: number; code: string; detail: string };
    expect([response.status, body.status, body.code]).toEqual([status, status, code]);
    // The message of a server error can contain internal details.
    if (status < 500) expect(body.detail).toBe('for the client');
    else expect(JSON.stringify(body)).not.toContain('for the client');
    expect(response.headers.get('www-authenticate')).toBeNull();
  },
);

it('sends the challenge of an invalid token if a private route throws a 401', async () => {
  const response = await fetch(`${gatehouse.url}/api/v1/notes/open/expired`, {
    headers: { authorization: `Bearer ${ada.token}` },
  });
  expect([response.status, await response.json()]).toMatchObject([
    401,
    { code: 'AUTH_TOKEN_INVALID', detail: 'for the client' },
  ]);
  expect(response.headers.get('www-authenticate')).toContain('error="invalid_token"');
});

it('joins the messages of an exception and omits the name of its status', async () => {
  const detailOf = async (path: string) =>
    JSON.parse((await getOpen(`exceptions/${path}`))[3] as string).detail;
  expect(await detailOf('list')).toBe('first. second');
  expect(await detailOf('default')).toBe('The route or the resource does not exist.');
});

it('does not quote the path of an unknown route in a response', async () => {
  expect((await getOpen('unknown?token=secret'))[3]).not.toContain('secret');
});

describe('response of a controller', () => {
  it('sends JSON with its length, and the same headers without a body for HEAD', async () => {
    const [, type, length] = await getOpen('all');
    expect(await getOpen('all')).toEqual([
      200,
      'application/json; charset=utf-8',
      '19',
      '{"title":"for all"}',
    ]);
    expect(await getOpen('all', 'HEAD')).toEqual([200, type, length, '']);
  });

  it('sends the content type and the status that a route sets', async () => {
    expect(await getOpen('of-its-own-type')).toEqual([
      200,
      'application/vnd.notes+json; charset=utf-8',
      '17',
      '{"title":"typed"}',
    ]);
    expect(await getOpen('without-content')).toEqual([204, null, null, '']);
  });
});
