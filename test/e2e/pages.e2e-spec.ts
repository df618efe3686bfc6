import {
  Controller,
  createParamDecorator,
  type ExecutionContext,
  Get,
  Header,
  Module,
} from '@nestjs/common';
import type { Request } from 'express';
import { createDocument } from '../../src/openapi/document.js';
import { AllowQuery } from '../../src/validation/unknown-query.guard.js';
import { Public } from '../../src/access/decorators.js';
import { type Stack, startStack } from '../support/stack.js';
import { type TestUser, signUp } from '../support/users.js';

const POLICY = "default-src 'self'; frame-ancestors 'none'";

const Language = createParamDecorator((_: unknown, context: ExecutionContext) => {
  const { query } = context.switchToHttp().getRequest<Request>();
  return query['lang'] === 'fr' ? 'fr' : 'en';
});

@Controller('pages')
class PagesController {
  @Get('welcome')
  @Public()
  @Header('Content-Type', 'text/html; charset=utf-8')
  @Header('Content-Security-Policy', POLICY)
  @Header('Cache-Control', 'public, max-age=60')
  welcome() {
    return '<!doctype html><title>Welcome</title>';
  }

  @Get('greeting')
  @AllowQuery('lang')
  greeting(@Language() language: string) {
    return { language };
  }
}

@Module({ controllers: [PagesController] })
class PagesModule {}

let stack: Stack;
let ada: TestUser;

beforeAll(async () => {
  stack = await startStack(
    {},
    { CORS_ORIGINS: 'https://app.example.com', CORS_ALLOWED_HEADERS: 'X-Tenant,Idempotency-Key' },
    { modules: [PagesModule] },
  );
  ada = await signUp(stack.auth);
});
afterAll(() => stack.end());

it("serves an HTML page with the content security policy of Nest's @Header()", async () => {
  const response = await fetch(`${stack.gatehouse.url}/api/v1/pages/welcome`);
  const header = (name: string) => response.headers.get(name);
  expect([response.status, header('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
  expect(header('content-security-policy')).toBe(POLICY);
  expect(header('cache-control')).toBe('public, max-age=60');
  expect(header('x-content-type-options')).toBe('nosniff');
  expect(await response.text()).toBe('<!doctype html><title>Welcome</title>');
  const other = await fetch(`${stack.gatehouse.url}/health/live`);
  expect(other.headers.get('content-security-policy')).toMatch(/^default-src 'none'/);
});

describe('@AllowQuery()', () => {
  const greet = async (query: string) => {
    const response = await fetch(`${stack.gatehouse.url}/api/v1/pages/greeting${query}`, {
      headers: { authorization: `Bearer ${ada.token}` },
    });
    const body = (await response.json()) as { errors?: { field: string }[] };
    return [response.status, body.errors?.[0]?.field ?? body] as unknown;
  };

  it('allows its query parameters and refuses all others', async () => {
    expect(await greet('')).toEqual([200, { language: 'en' }]);
    expect(await greet('?lang=fr')).toEqual([200, { language: 'fr' }]);
    expect(await greet('?lang=fr&page=1')).toEqual([400, 'page']);
  });

  it('documents its query parameters', () => {
    const { paths } = createDocument(stack.gatehouse.app);
    expect(paths['/api/v1/pages/greeting']?.get?.parameters).toEqual([
      { name: 'lang', in: 'query', required: false, schema: { type: 'string' } },
    ]);
  });
});

it('allows the request headers of CORS_ALLOWED_HEADERS to the pages of CORS_ORIGINS', async () => {
  const response = await fetch(`${stack.gatehouse.url}/api/v1/pages/greeting`, {
    method: 'OPTIONS',
    headers: {
      origin: 'https://app.example.com',
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'authorization,x-tenant',
    },
  });
  expect(response.headers.get('access-control-allow-headers')).toBe(
    'Authorization,Content-Type,If-Match,X-Request-Id,X-Tenant,Idempotency-Key',
  );
});
