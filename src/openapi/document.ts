import type { NestExpressApplication } from '@nestjs/platform-express';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { PROBLEM_MARK } from '../problems/problems.decorator.js';
import { ErrorResponse } from '../problems/problem.dto.js';
import { type ErrorCode, kindOf, Problem, problemBody, problemKinds } from '../problems/problem.js';
import { ACCESS_NOTE } from '../access/decorators.js';
import { HEADERS } from './headers.js';
import { INTRODUCTION, TAGS } from './introduction.js';

/** Creates the OpenAPI document from the decorators, and adds what all routes have in common. */
export function createDocument(app: NestExpressApplication): OpenAPIObject {
  const builder = new DocumentBuilder()
    .setOpenAPIVersion('3.1.0')
    .setTitle('Gatehouse')
    .setDescription(INTRODUCTION)
    .setVersion('1')
    .setLicense('MIT', 'https://opensource.org/license/mit')
    .addServer(
      '/',
      'The server of this document, local or production',
      {},
      {
        'x-internal': false,
      },
    )
    .addBearerAuth(
      {
        type: 'http',
        scheme: 'bearer',
        bearerFormat: 'JWT',
        description:
          'A token from Better-Auth (`GET /api/auth/token`). It is verified as RFC8725 recommends: the key determines the algorithm, and the issuer and the audience are always checked.',
      },
      BEARER,
    );
  for (const [name, description] of Object.entries(TAGS)) builder.addTag(name, description);
  const document = SwaggerModule.createDocument(app, builder.build(), {
    extraModels: [ErrorResponse],
  });
  for (const [path, operation] of operationsOf(document)) completeOperation(path, operation);
  document.tags = allTags(document);
  const schemas = Object.values(document.components?.schemas ?? {});
  for (const schema of schemas) completeIntegers(schema as Schema);
  const errors = document.components?.schemas?.[ErrorResponse.name] as ErrorSchema;
  errors.properties.code['enum'] = [...problemKinds().keys()];
  for (const [, { requestBody }] of operationsOf(document)) {
    for (const { schema: { $ref = '' } = {} } of Object.values(requestBody?.content ?? {})) {
      closeSchema(document, $ref);
    }
  }
  const headers = Object.entries(HEADERS).map(([name, header]) => [
    name,
    { ...header, schema: { type: 'string' } },
  ]);
  document.components = {
    ...document.components,
    headers: Object.fromEntries(headers) as Record<string, never>,
  };
  return document;
}

/** `RequestValidationPipe` rejects unknown fields, also in the objects of a body. */
function closeSchema(document: OpenAPIObject, ref: string): void {
  const schema = document.components?.schemas?.[ref.slice(SCHEMAS.length)] as Schema | undefined;
  if (!schema || schema['additionalProperties'] === false) return;
  schema['additionalProperties'] = false;
  const inner = JSON.stringify(schema['properties'] ?? {}).matchAll(/"\$ref":"([^"]+)"/g);
  for (const [, $ref = ''] of inner) closeSchema(document, $ref);
}

/** The tags of Gatehouse in their order, then those of other modules. */
function allTags(document: OpenAPIObject) {
  const names = operationsOf(document).flatMap(([, { tags = [] }]) => tags);
  const own = [...new Set(names)].filter((name) => !(name in TAGS));
  return [...(document.tags ?? []), ...own.map((name) => ({ name, description: name }))];
}

const BEARER = 'bearer';
const SCHEMAS = '#/components/schemas/';

/** Problems of every route. */
const COMMON_PROBLEMS: ErrorCode[] = ['MALFORMED_REQUEST', 'INTERNAL_ERROR'];

/** Problems of every route that requires a token. */
const PRIVATE_ROUTE_PROBLEMS: ErrorCode[] = [
  'VALIDATION_ERROR',
  'AUTH_MISSING_TOKEN',
  'AUTH_TOKEN_INVALID',
  'AUTH_TOKEN_EXPIRED',
  'AUTH_SESSION_REVOKED',
  'USER_BANNED',
];

/** Problems of every route except the health probes, which have no rate limit and their own 503. */
const API_PROBLEMS: ErrorCode[] = ['RATE_LIMITED', 'SERVICE_UNAVAILABLE'];

/** Problems of every route with a request body. */
const BODY_PROBLEMS: ErrorCode[] = ['PAYLOAD_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE'];

/** The marks of `@Roles`, `@RequirePermissions`, `@SelfOrAdmin` and `@RequireVerifiedEmail`. */
const ACCESS_RULE_PROBLEMS: ErrorCode[] = ['AUTH_FORBIDDEN', 'EMAIL_NOT_VERIFIED'];

interface Operation extends Record<string, unknown> {
  description?: string;
  tags?: string[];
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema?: { $ref?: string } }> };
  responses: Record<string, Response>;
}

interface Parameter {
  in?: string;
  example?: unknown;
  schema?: Schema;
}

interface Response {
  description?: string;
  headers?: Record<string, object>;
  content?: Record<string, { schema?: { $ref?: string; allOf?: object[] } }>;
}

type Schema = Record<string, unknown>;

interface ErrorSchema {
  properties: { code: Schema };
}

export function operationsOf(document: OpenAPIObject): [path: string, Operation][] {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    Object.values(item as Record<string, Operation>).map((operation): [string, Operation] => [
      path,
      operation,
    ]),
  );
}

function completeOperation(path: string, operation: Operation): void {
  const marked = Object.keys(operation).filter((key) => key.startsWith(PROBLEM_MARK));
  const hasAccessRule = ACCESS_RULE_PROBLEMS.some((code) =>
    marked.includes(`${PROBLEM_MARK}${code}`),
  );
  // As in `AuthGuard`, an access rule makes a route private even if its class is public.
  const isPublic = operation['x-public'] === true && !hasAccessRule;
  const isProbe = path.startsWith('/health');
  delete operation['x-public'];
  operation['security'] = isPublic ? [] : [{ [BEARER]: [] }];
  for (const key of marked) delete operation[key];
  if (typeof operation[ACCESS_NOTE] === 'string') {
    operation.description = `${operation.description ?? ''} ${operation[ACCESS_NOTE]}`.trim();
    delete operation[ACCESS_NOTE];
  }
  const codes = new Set<string>([
    ...COMMON_PROBLEMS,
    ...(isPublic ? [] : PRIVATE_ROUTE_PROBLEMS),
    ...(isProbe ? [] : API_PROBLEMS),
    ...(operation.requestBody === undefined ? [] : BODY_PROBLEMS),
    ...marked.map((key) => key.slice(PROBLEM_MARK.length)),
  ]);
  for (const [status, ofStatus] of Map.groupBy(codes, (code) => kindOf(code).status)) {
    operation.responses[status] = problemResponse(status, ofStatus);
  }
  for (const parameter of operation.parameters ?? []) completeParameter(parameter);
  for (const [status, response] of Object.entries(operation.responses)) {
    response.headers = {
      ...headersOf(Number(status), response, isProbe),
      ...response.headers,
    };
  }
}

/** Moves the example from the schema, where Nest puts it, to the parameter. */
function completeParameter(parameter: Parameter): void {
  const { schema } = parameter;
  if (!schema) return;
  if ('example' in schema) {
    parameter.example = schema['example'];
    delete schema['example'];
  }
  if (parameter.in === 'path' && schema['type'] === 'string' && !('enum' in schema)) {
    schema['maxLength'] ??= MAX_HEADER_BYTES;
  }
  completeIntegers(schema);
}

/** The limit of Node for the request line and all headers. */
const MAX_HEADER_BYTES = 16_384;

/** Gives integers without a bound the bounds of a safe integer in JavaScript. */
function completeIntegers(schema: Schema): void {
  const types = [schema['type']].flat();
  if (types.includes('integer')) {
    schema['minimum'] ??= 0;
    schema['maximum'] ??= Number.MAX_SAFE_INTEGER;
    schema['format'] ??= Number(schema['maximum']) < 2 ** 31 ? 'int32' : 'int64';
  }
  for (const inner of Object.values(schema['properties'] ?? {})) completeIntegers(inner as Schema);
}

function headersOf(status: number, { content }: Response, isProbe: boolean) {
  const schemas = Object.values(content ?? {}).map(({ schema }) => schema?.$ref);
  const names = [
    'X-Request-Id',
    'Access-Control-Allow-Origin',
    ...(!isProbe && status < 500 ? ['RateLimit', 'RateLimit-Policy'] : []),
    ...(status === 401 ? ['WWW-Authenticate'] : []),
    ...(status === 429 || status === 503 ? ['Retry-After'] : []),
    ...(schemas.includes(`${SCHEMAS}UserRead`) ? ['ETag'] : []),
  ];
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
}

/** Generators of clients create a union from the codes of each status. */
function problemResponse(status: number, codes: string[]): Response {
  const examples = Object.fromEntries(
    codes.map((code) => [code, { value: problemBody(new Problem(code), '/api/v1/…', EXAMPLE_ID) }]),
  );
  const ofStatus = {
    type: 'object',
    properties: { status: { const: status }, code: { type: 'string', enum: codes } },
  };
  const media = { schema: { allOf: [{ $ref: `${SCHEMAS}ErrorResponse` }, ofStatus] }, examples };
  return {
    description: codes.map((code) => `\`${code}\`: ${kindOf(code).title}`).join('. '),
    content: { 'application/problem+json': media },
  };
}

const EXAMPLE_ID = '8f14e45f-ceea-467f-a0e6-c0f2a8a1b1de';
