import { createHmac } from 'node:crypto';
import {
  BadRequestException,
  Body,
  Controller,
  Get,
  Header,
  Headers,
  HttpCode,
  Module,
  Param,
  Post,
  RawBody,
  StreamableFile,
  UploadedFile,
  UseInterceptors,
} from '@nestjs/common';
import { FileInterceptor } from '@nestjs/platform-express';
import { ApiBody, ApiCreatedResponse, ApiOkResponse, ApiProduces } from '@nestjs/swagger';
import { Public, Roles } from '../../src/access/decorators.js';
import { BytesBody, MultipartBody, TextBody } from '../../src/http/body.decorators.js';
import { Problems } from '../../src/problems/problems.decorator.js';
import { registerProblems } from '../../src/problems/problem.js';
import { describeRouteMatrix, parseMatrix } from '../support/route-matrix.js';
import { type Stack, startStack } from '../support/stack.js';
import { signUp } from '../support/users.js';

const invoiceProblem = registerProblems({
  SIGNATURE_WRONG: { status: 401, title: 'The signature is wrong', meaning: 'Check the key.' },
});

class Scan {
  scan: string;
}

const TEXT = { schema: { type: 'string' } };
const BYTES = { schema: { type: 'string', format: 'binary' } };

/** A file, text, bytes and a webhook. Each route refuses a body that arrives otherwise. */
@Controller('invoices')
class InvoicesController {
  @Get('prices')
  @Public()
  @ApiOkResponse({ schema: { type: 'object' } })
  prices() {
    return { perHour: 100 };
  }

  @Get(':invoiceId')
  @Header('Content-Type', 'application/pdf')
  @ApiProduces('application/pdf')
  @ApiOkResponse(BYTES)
  pdf(@Param('invoiceId') id: string) {
    return new StreamableFile(Buffer.from(`%PDF-${id}`));
  }

  @Post('scans')
  @MultipartBody()
  @ApiBody({ type: Scan })
  @ApiCreatedResponse()
  @Roles('admin')
  @UseInterceptors(FileInterceptor('scan'))
  scan(@UploadedFile() scan: { size: number } | undefined) {
    if (scan?.size !== 3) throw new BadRequestException();
  }

  @Post('lines')
  @HttpCode(200)
  @TextBody({ types: ['text/csv', 'text/plain'] })
  @Header('Content-Type', 'text/csv')
  @ApiProduces('text/csv')
  @ApiOkResponse(TEXT)
  lines(@Body() lines: string, @Headers('content-type') type: string) {
    return `${type}\n${lines}`;
  }

  @Post('stamps')
  @BytesBody({ types: ['application/octet-stream', 'image/png'] })
  @ApiCreatedResponse()
  stamp(@Body() stamp: Buffer) {
    if (stamp.toString('hex') !== '00ff') throw new BadRequestException();
  }

  @Post('payments')
  @Public()
  @HttpCode(204)
  @Problems('SIGNATURE_WRONG')
  pay(@RawBody() raw: Buffer, @Headers('signature') signature: string) {
    if (signature !== signatureOf(raw)) throw invoiceProblem('SIGNATURE_WRONG');
  }
}

@Module({ controllers: [InvoicesController] })
class InvoicesModule {}

const signatureOf = (raw: string | Buffer) => createHmac('sha256', 'key').update(raw).digest('hex');

function scanForm() {
  const form = new FormData();
  form.set('scan', new File(['abc'], 'scan.png'));
  return form;
}

const extensions = { modules: [InvoicesModule] };
const SIGNATURE = '401 SIGNATURE_WRONG';

describeRouteMatrix({
  name: 'routes of invoices',
  prefix: '/api/v1/invoices',
  extensions,
  matrix: `
                                      admin        self         other        no-token     banned       demoted      revoked
    GET  /api/v1/invoices/prices      200          200          200          200          200          200          200
    GET  /api/v1/invoices/{invoiceId} 200          200          200          MISSING      BANNED       200          REVOKED
    POST /api/v1/invoices/scans       201          FORBIDDEN    FORBIDDEN    MISSING      BANNED       FORBIDDEN    REVOKED
    POST /api/v1/invoices/lines       200          200          200          MISSING      BANNED       200          REVOKED
    POST /api/v1/invoices/stamps      201          201          201          MISSING      BANNED       201          REVOKED
    POST /api/v1/invoices/payments    ${Array.from({ length: 7 }, () => SIGNATURE).join(' ')}
  `,
  bodies: {
    'POST /api/v1/invoices/scans': scanForm(),
    'POST /api/v1/invoices/lines': ({ id }) => `id,owner\n1,${id}\n`,
    'POST /api/v1/invoices/stamps': Buffer.from('00ff', 'hex'),
    'POST /api/v1/invoices/payments': { paid: true },
  },
});

it.each([
  ['an unknown name', '200 FORBIDEN', 'FORBIDEN'],
  ['too few cells', '200', 'GET /a'],
  ['too many cells', '200 MISSING MISSING', 'GET /a'],
])('refuses a table with %s', (_what, cells, message) => {
  expect(() => parseMatrix(`admin no-token\nGET /a ${cells}`)).toThrow(message);
});

describe('call() of a test', () => {
  let stack: Stack;
  beforeAll(async () => (stack = await startStack({}, {}, extensions)));
  afterAll(() => stack.end());

  const post = async (path: string, body: unknown, headers = {}) => {
    const { token } = await signUp(stack.auth);
    const options = { method: 'POST', token, body, headers };
    return stack.gatehouse.call(`/api/v1/invoices/${path}`, options);
  };

  it('returns the bytes of a file', async () => {
    const { token } = await signUp(stack.auth);
    const { status, body } = await stack.gatehouse.call('/api/v1/invoices/7', { token });
    expect([status, body]).toEqual([200, Buffer.from('%PDF-7')]);
  });

  it.each([
    ['text', 'a,b', {}, 'text/plain;charset=UTF-8'],
    ['a Blob', new Blob(['a,b'], { type: 'text/csv' }), {}, 'text/csv'],
    ['text with a header', 'a,b', { 'content-type': 'text/csv' }, 'text/csv'],
  ])('sends %s with its own content type, and returns text', async (_what, sent, headers, type) => {
    const { status, body } = await post('lines', sent, headers);
    expect([status, body]).toEqual([200, `${type}\na,b`]);
  });

  it('sends an object as JSON, and returns the problem', async () => {
    const { status, body } = await post('stamps', { a: 1 });
    expect([status, body.code]).toEqual([415, 'UNSUPPORTED_MEDIA_TYPE']);
  });

  it('signs the body of a webhook, and the empty body of a request without one', async () => {
    const text = '{ "paid" : true }';
    const type = { 'content-type': 'application/json' };
    const signed = await post('payments', text, { ...type, signature: signatureOf(text) });
    expect(signed.status).toBe(204);
    const empty = await post('payments', undefined, { signature: signatureOf('') });
    expect(empty.status).toBe(204);
  });
});
