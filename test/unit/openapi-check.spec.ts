import { createOpenApiCheck } from '../support/openapi-check.js';

const responseOf = (type: string, schema?: object) => ({
  responses: { 200: { description: '', content: { [type]: schema ? { schema } : {} } } },
});

const check = createOpenApiCheck({
  openapi: '3.1.0',
  info: { title: 'Test', version: '1' },
  paths: {
    '/invoices/{id}': {
      get: responseOf('application/json', { const: 'an invoice' }),
      post: responseOf('application/json', { const: 'an invoice' }),
    },
    '/invoices/payments': { post: responseOf('application/json', { const: 'a payment' }) },
    '/invoices/{id}/pdf': { get: responseOf('application/pdf') },
    '/invoices/{id}/csv': { get: responseOf('text/csv', { type: 'string', pattern: '^id,' }) },
  },
});

const answer = (type: string, body: unknown) => ({
  status: 200,
  headers: new Headers({ 'content-type': `${type}; charset=utf-8` }),
  body,
});
const json = (body: unknown) => answer('application/json', body);

it('prefers a path without parameters, although one with parameters comes first', () => {
  check('POST', '/invoices/payments?page=1', json('a payment'));
  check('POST', '/invoices/1', json('an invoice'));
  expect(() => check('POST', '/invoices/payments', json('an invoice'))).toThrow(
    'POST /invoices/payments 200 is not as documented',
  );
});

it('uses the path with parameters for a method that the literal path lacks', () => {
  check('GET', '/invoices/payments', json('an invoice'));
  expect(() => check('GET', '/invoices/payments', json('a payment'))).toThrow(
    'GET /invoices/{id} 200 is not as documented',
  );
});

it('accepts bytes of the documented type only', () => {
  check('GET', '/invoices/1/pdf', answer('application/pdf', Buffer.from('%PDF-')));
  expect(() =>
    check('GET', '/invoices/1/pdf', answer('image/png', Buffer.from('\x89PNG'))),
  ).toThrow('GET /invoices/{id}/pdf 200 is not documented to be image/png');
});

it('compares text with its schema', () => {
  check('GET', '/invoices/1/csv', answer('text/csv', 'id,total\n'));
  expect(() => check('GET', '/invoices/1/csv', answer('text/csv', 'total\n'))).toThrow(
    'GET /invoices/{id}/csv 200 is not as documented',
  );
});
