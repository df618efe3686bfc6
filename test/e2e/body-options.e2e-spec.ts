import { createHmac } from 'node:crypto';
import { connect } from 'node:net';
import {
  BadRequestException,
  Body,
  Controller,
  type ExecutionContext,
  HttpCode,
  Module,
  ParseArrayPipe,
  Post,
  RawBody,
  UploadedFile,
  UseInterceptors,
} from '@nestjs/common';
import { FileInterceptor } from '@nestjs/platform-express';
import { ApiBody } from '@nestjs/swagger';
import type { Request } from 'express';
import { IsInt, IsOptional, IsString } from 'class-validator';
import { Public } from '../../src/access/decorators.js';
import {
  BytesBody,
  FormBody,
  JsonBody,
  MultipartBody,
  TextBody,
} from '../../src/http/body.decorators.js';
import { createDocument } from '../../src/openapi/document.js';
import { until } from '../support/app-process.js';
import { type Stack, startStack } from '../support/stack.js';
import { type TestUser, signUp } from '../support/users.js';

class Item {
  @IsInt()
  amount: number;
}

class Caption {
  @IsString()
  @IsOptional()
  title?: string;
}

class Upload extends Caption {
  file: string;
}

const handled: string[] = [];

@Controller('kinds')
class KindsController {
  @Post('json')
  @HttpCode(200)
  @JsonBody({ limit: 100_000, maxEntries: 1000, maxDepth: 8 })
  json(@Body() body: object) {
    return { length: JSON.stringify(body).length };
  }

  @Post('items')
  @HttpCode(200)
  items(@Body(new ParseArrayPipe({ items: Item, forbidNonWhitelisted: true })) items: Item[]) {
    return { items: items.map((item) => item instanceof Item && item.amount) };
  }

  @Post('form')
  @HttpCode(200)
  @FormBody()
  form(@Body() body: Caption) {
    return { isDto: body instanceof Caption, title: body.title };
  }

  @Post('text')
  @HttpCode(200)
  @TextBody({ types: ['text/csv'], limit: 20_000 })
  text(@Body() body: string) {
    return { text: body };
  }

  @Post('bytes')
  @HttpCode(200)
  @BytesBody()
  bytes(@Body() body: Buffer) {
    return { isBuffer: Buffer.isBuffer(body), hex: body.toString('hex') };
  }

  @Post('webhook')
  @HttpCode(200)
  @Public()
  webhook(@RawBody() raw: Buffer, @Body() body: object) {
    return { signature: createHmac('sha256', 'key').update(raw).digest('hex'), body };
  }

  @Post('upload')
  @HttpCode(200)
  @MultipartBody({ limit: 200_000 })
  @ApiBody({ type: Upload })
  @UseInterceptors(FileInterceptor('file', { limits: { fileSize: 150_000 } }))
  upload(@UploadedFile() file: { originalname: string; size: number }, @Body() body: Caption) {
    handled.push(file.originalname);
    return { name: file.originalname, size: file.size, title: body.title };
  }
}

/** Readers of a body by an application, which can stop before its end. */
@Controller('readers')
@MultipartBody({ limit: 200_000 })
class ReadersController {
  @Post('refuses')
  @UseInterceptors({
    intercept: (context: ExecutionContext) =>
      new Promise<never>((_, reject) => {
        const request = context.switchToHttp().getRequest<Request>();
        request.on('data', () => reject(new BadRequestException('not a picture'))).resume();
      }),
  })
  refuses() {
    return {};
  }

  @Post('hangs')
  @UseInterceptors({ intercept: () => new Promise<never>(() => undefined) })
  hangs() {
    return {};
  }
}

@Module({ controllers: [KindsController, ReadersController] })
class KindsModule {}

let stack: Stack;
let ada: TestUser;

beforeAll(async () => {
  stack = await startStack({}, {}, { modules: [KindsModule] });
  ada = await signUp(stack.auth);
});
afterAll(() => stack.end());

/** Sends an upload with these framing headers in parts, and returns all that the server sends. */
async function sendRaw(path: string, framing: string, parts: string[], version = '1.1') {
  const socket = connect(Number(new URL(stack.gatehouse.url).port), '127.0.0.1');
  let received = '';
  socket.on('data', (chunk: Buffer) => (received += chunk.toString())).on('error', () => undefined);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write(
    `POST /api/v1/${path} HTTP/${version}\r\nHost: x\r\nAuthorization: Bearer ${ada.token}\r\n` +
      `Content-Type: multipart/form-data; boundary=x\r\n${framing}\r\n\r\n${parts[0]}`,
  );
  await until(async () => received.includes('\r\n\r\n{'), true);
  for (const part of parts.slice(1)) socket.write(part);
  if (parts.length > 1) await closed;
  socket.destroy();
  return [...received.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status));
}

const CHUNKED = 'Transfer-Encoding: chunked';
const FIRST = '5\r\nabcde\r\n';

it.each([
  ['a chunk over the limit', `${(250_000).toString(16)}\r\n${'x'.repeat(250_000)}\r\n`],
  ['too many small chunks', '1\r\nx\r\n'.repeat(1000)],
])('sends one response when a reader refuses a body that continues with %s', async (_, rest) => {
  expect(await sendRaw('readers/refuses', CHUNKED, [FIRST, rest])).toEqual([400]);
  expect((await send('bytes', 'application/octet-stream', 'a'))[0]).toBe(200);
});

it('fails a request at its deadline when its body has arrived but is not read', async () => {
  expect(await sendRaw('readers/hangs', 'Content-Length: 5', ['abcde'])).toEqual([503]);
});

it.each([
  ['another transfer coding', 'Transfer-Encoding: gzip, chunked', '1.1'],
  ['chunks in HTTP/1.0', CHUNKED, '1.0'],
])('rejects a body with %s', async (_, framing, version) => {
  expect(await sendRaw('kinds/upload', framing, [FIRST], version)).toEqual([400]);
});

async function send(
  kind: string,
  type: string | undefined,
  body: RequestInit['body'],
  token = ada.token,
) {
  const response = await fetch(`${stack.gatehouse.url}/api/v1/kinds/${kind}`, {
    method: 'POST',
    headers: {
      ...(token === '' ? {} : { authorization: `Bearer ${token}` }),
      ...(type === undefined ? {} : { 'content-type': type }),
    },
    body: body ?? null,
  });
  return [response.status, await response.json()] as [number, Record<string, unknown>];
}

const JSON_TYPE = 'application/json';

describe('@JsonBody()', () => {
  const nested = (levels: number): object => (levels === 0 ? {} : { a: nested(levels - 1) });
  const fields = (count: number) =>
    Array.from({ length: count }, (_, n) => [`f${n}`, 'a'.repeat(80)]);
  const json = (entries: unknown[][]) => JSON.stringify(Object.fromEntries(entries));

  it('accepts a body within its limits, although it exceeds those of other routes', async () => {
    const large = json(fields(1000));
    expect(large.length).toBeGreaterThan(16_384);
    expect(await send('json', JSON_TYPE, large)).toEqual([200, { length: large.length }]);
    expect(await send('json', JSON_TYPE, JSON.stringify(nested(7)))).toMatchObject([200, {}]);
  });

  it.each([
    ['more fields', json(fields(1001)), 400, 'VALIDATION_ERROR'],
    ['deeper objects', JSON.stringify(nested(9)), 400, 'MALFORMED_REQUEST'],
    ['more bytes', JSON.stringify({ a: 'a'.repeat(100_000) }), 413, 'PAYLOAD_TOO_LARGE'],
    ['an array', '[]', 400, 'MALFORMED_REQUEST'],
  ])('refuses a body with %s', async (_what, body, status, code) => {
    expect(await send('json', JSON_TYPE, body)).toMatchObject([status, { code }]);
  });
});

describe('array as a body', () => {
  it("accepts and validates the items of an array with Nest's ParseArrayPipe", async () => {
    const items = JSON.stringify([{ amount: 1 }, { amount: 2 }]);
    expect(await send('items', JSON_TYPE, items)).toEqual([200, { items: [1, 2] }]);
    expect(await send('items', JSON_TYPE, '[{"amount":"many"}]')).toMatchObject([400, {}]);
  });

  it('counts the items of an array', async () => {
    const items = JSON.stringify(Array.from({ length: 51 }, () => ({ amount: 1 })));
    expect(await send('items', JSON_TYPE, items)).toMatchObject([
      400,
      { code: 'VALIDATION_ERROR' },
    ]);
  });
});

describe('@FormBody()', () => {
  const FORM = 'application/x-www-form-urlencoded';

  it('converts the fields of a form to a DTO', async () => {
    expect(await send('form', FORM, 'title=On+the+Engine')).toEqual([
      200,
      { isDto: true, title: 'On the Engine' },
    ]);
  });

  it.each([
    ['a field that the DTO lacks', 'titel=a', 'VALIDATION_ERROR'],
    ['a repeated field', 'title=a&title=b', 'VALIDATION_ERROR'],
    ['a field that every object inherits', '__proto__=a', 'VALIDATION_ERROR'],
    [
      'too many fields',
      Array.from({ length: 51 }, (_, n) => `f${n}=`).join('&'),
      'VALIDATION_ERROR',
    ],
  ])('refuses a form with %s', async (_what, body, code) => {
    expect(await send('form', FORM, body)).toMatchObject([400, { code }]);
  });

  it('refuses JSON, as other routes refuse a form', async () => {
    const refused = [415, { code: 'UNSUPPORTED_MEDIA_TYPE' }];
    expect(await send('form', JSON_TYPE, '{"title":"a"}')).toMatchObject(refused);
    expect(await send('items', FORM, 'title=a')).toMatchObject(refused);
  });
});

describe('@TextBody() and @BytesBody()', () => {
  it('passes text of the declared type up to its limit', async () => {
    const text = 'a,b\n'.repeat(5000);
    expect(await send('text', 'text/csv', text)).toEqual([200, { text }]);
    expect(await send('text', 'text/csv', `${text}c`)).toMatchObject([413, {}]);
    expect(await send('text', 'text/plain', text)).toMatchObject([415, {}]);
    expect(await send('text', 'text/csv; charset=latin1', text)).toMatchObject([415, {}]);
  });

  it('passes bytes unchanged', async () => {
    const bytes = Buffer.from('00ff80c0', 'hex');
    expect(await send('bytes', 'application/octet-stream', bytes)).toEqual([
      200,
      { isBuffer: true, hex: '00ff80c0' },
    ]);
    const large = Buffer.alloc(16_385);
    expect(await send('bytes', 'application/octet-stream', large)).toMatchObject([413, {}]);
  });

  it("provides Nest's @RawBody(), so that a webhook can check a signature", async () => {
    const text = '{ "event" : "paid" }';
    const signature = createHmac('sha256', 'key').update(text).digest('hex');
    expect(await send('webhook', JSON_TYPE, text, '')).toEqual([
      200,
      { signature, body: { event: 'paid' } },
    ]);
  });

  it('provides an empty @RawBody() for a request without a body', async () => {
    const signature = createHmac('sha256', 'key').update('').digest('hex');
    expect(await send('webhook', undefined, undefined, '')).toEqual([200, { signature }]);
  });
});

describe('@MultipartBody()', () => {
  function form(bytes: number, extra: Record<string, string> = {}) {
    const data = new FormData();
    data.set('file', new File([Buffer.alloc(bytes)], 'engine.png'));
    for (const [name, value] of Object.entries(extra)) data.set(name, value);
    return data;
  }

  it('passes the file and the validated fields to the handler', async () => {
    expect(await send('upload', undefined, form(150_000, { title: 'a' }))).toEqual([
      200,
      { name: 'engine.png', size: 150_000, title: 'a' },
    ]);
    expect(await send('upload', undefined, form(10, { titel: 'a' }))).toMatchObject([
      400,
      { code: 'VALIDATION_ERROR' },
    ]);
  });

  it('refuses a body over its limit by its headers, and a file over that of the interceptor', async () => {
    const refused = [413, { code: 'PAYLOAD_TOO_LARGE' }];
    expect(await send('upload', undefined, form(200_000))).toMatchObject(refused);
    expect(await send('upload', undefined, form(150_001))).toMatchObject(refused);
  });

  it('reads no file of a client without a token', async () => {
    expect(await send('upload', undefined, form(10), '')).toMatchObject([401, {}]);
  });

  it('refuses a chunked body at the first byte over the limit, and does not call the handler', async () => {
    handled.length = 0;
    const socket = connect(Number(new URL(stack.gatehouse.url).port), '127.0.0.1');
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
    socket.on('error', () => undefined);
    const closed = new Promise((resolve) => socket.on('close', resolve));
    const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
    const part = (name: string) => `--b\r\nContent-Disposition: form-data; name=${name}\r\n\r\n`;
    socket.write(
      `POST /api/v1/kinds/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${ada.token}\r\n` +
        'Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n' +
        chunk(
          `${part('"file"; filename="a.txt"')}${'a'.repeat(140_000)}\r\n${part('"title"')}${'a'.repeat(60_000)}`,
        ),
    );
    await until(() => answer.startsWith('HTTP/1.1 413 '), true);
    socket.write(`${chunk('\r\n--b--\r\n')}0\r\n\r\n`);
    await closed;
    expect(answer).toContain('Connection: close');
    expect(handled).toEqual([]);
    expect(JSON.stringify(stack.gatehouse.lines)).not.toContain('INTERNAL_ERROR');
  });
});

it('documents the content types that each route accepts', () => {
  const { paths } = createDocument(stack.gatehouse.app);
  const types = Object.entries(paths)
    .filter(([path]) => path.startsWith('/api/v1/kinds/'))
    .flatMap(([path, { post }]) => {
      const body = post?.requestBody as { content: object } | undefined;
      return body ? [`${path.slice(14)}: ${Object.keys(body.content).join()}`] : [];
    });
  expect(types).toEqual([
    'items: application/json',
    'form: application/x-www-form-urlencoded',
    'text: text/csv',
    'bytes: application/octet-stream',
    'upload: multipart/form-data',
  ]);
});
