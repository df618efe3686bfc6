import type { NestExpressApplication } from '@nestjs/platform-express';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { PROBLEM_MARK } from '../problems/problems.decorator.js';
import { ErrorResponse } from '../problems/problem.dto.js';
import { type ErrorCode, PROBLEMS, problem, problemBody } from '../problems/problem.js';
import { HEADERS, INTRODUCTION, OPERATIONS, PARAMETERS, TAGS } from './texts.js';

/** The OpenAPI document: what the decorators say, and what every route has in common. */
export function createDocument(app: NestExpressApplication): OpenAPIObject {
  const builder = new DocumentBuilder()
    .setOpenAPIVersion('3.1.0')
    .setTitle('Gatehouse')
    .setDescription(INTRODUCTION)
    .setVersion('1')
    .setLicense('MIT', 'https://opensource.org/license/mit')
    .addServer(
      '/',
      'Where this document came from: production, staging or local',
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
          'A token from Better-Auth (`GET /api/auth/token`), verified as RFC8725 asks: the key says which algorithm it is for, issuer and audience are always checked.',
      },
      BEARER,
    );
  for (const [name, description] of Object.entries(TAGS)) builder.addTag(name, description);
  const document = SwaggerModule.createDocument(app, builder.build(), {
    extraModels: [ErrorResponse],
  });
  for (const [path, operation] of operationsOf(document)) completeOperation(path, operation);
  const schemas = Object.values(document.components?.schemas ?? {});
  for (const schema of schemas) completeIntegers(schema as Schema);
  for (const [, { requestBody }] of operationsOf(document)) {
    const { $ref = '' } = requestBody?.content['application/json']?.schema ?? {};
    const schema = document.components?.schemas?.[$ref.slice(SCHEMAS.length)];
    // As the RequestPipe has it.
    if (schema) Object.assign(schema, { additionalProperties: false });
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

/** Swagger UI would fill in the example of a filter, and send it. */
export function withoutExamples(document: OpenAPIObject): OpenAPIObject {
  const plain = structuredClone(document);
  for (const [, { parameters = [] }] of operationsOf(plain)) {
    for (const parameter of parameters) delete parameter.example;
  }
  return plain;
}

const BEARER = 'bearer';
const SCHEMAS = '#/components/schemas/';

/** Any route at all can answer these. */
const OF_EVERY_ROUTE: ErrorCode[] = ['MALFORMED_REQUEST', 'INTERNAL_ERROR'];

/** Any route that asks for a token can answer these. */
const OF_EVERY_PRIVATE_ROUTE: ErrorCode[] = [
  'VALIDATION_ERROR',
  'AUTH_MISSING_TOKEN',
  'AUTH_TOKEN_INVALID',
  'AUTH_TOKEN_EXPIRED',
  'AUTH_SESSION_REVOKED',
  'USER_BANNED',
  'SERVICE_UNAVAILABLE',
];

/** Probes are not counted. */
const OF_EVERY_COUNTED_ROUTE: ErrorCode[] = ['RATE_LIMITED'];

const OF_EVERY_BODY: ErrorCode[] = ['PAYLOAD_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE'];

/** What `@Roles`, `@SelfOrAdmin` and `@RequireVerifiedEmail` mark a route with. */
const DEMANDS: ErrorCode[] = ['AUTH_FORBIDDEN', 'EMAIL_NOT_VERIFIED'];

interface Operation extends Record<string, unknown> {
  operationId?: string;
  description?: string;
  parameters?: Parameter[];
  requestBody?: { content: Record<string, { schema?: { $ref?: string } }> };
  responses: Record<string, Response>;
}

interface Parameter {
  name: string;
  description?: string;
  example?: unknown;
  schema?: Schema;
}

interface Response {
  description?: string;
  headers?: Record<string, object>;
  content?: Record<string, { schema?: { $ref?: string } }>;
}

type Schema = Record<string, unknown>;

function operationsOf(document: OpenAPIObject): [path: string, Operation][] {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    Object.values(item as Record<string, Operation>).map((operation): [string, Operation] => [
      path,
      operation,
    ]),
  );
}

function completeOperation(path: string, operation: Operation): void {
  const marked = Object.keys(operation).filter((key) => key.startsWith(PROBLEM_MARK));
  const asksMore = DEMANDS.some((code) => marked.includes(`${PROBLEM_MARK}${code}`));
  // As the AuthGuard has it: what a route asks for counts, though its class is public.
  const isPublic = operation['x-public'] === true && !asksMore;
  const isCounted = !path.startsWith('/health');
  delete operation['x-public'];
  operation['security'] = isPublic ? [] : [{ [BEARER]: [] }];
  for (const key of marked) delete operation[key];
  const codes = new Set([
    ...OF_EVERY_ROUTE,
    ...(isPublic ? [] : OF_EVERY_PRIVATE_ROUTE),
    ...(isCounted ? OF_EVERY_COUNTED_ROUTE : []),
    ...(operation.requestBody === undefined ? [] : OF_EVERY_BODY),
    ...marked.map((key) => key.slice(PROBLEM_MARK.length) as ErrorCode),
  ]);
  for (const [status, ofStatus] of Map.groupBy(codes, (code) => PROBLEMS[code].status)) {
    operation.responses[status] = problemResponse(ofStatus);
  }
  const words = OPERATIONS[operation.operationId ?? ''];
  if (words !== undefined) operation.description = words;
  for (const parameter of operation.parameters ?? []) {
    // A name says what it is for in our own routes alone.
    if (words !== undefined) completeParameter(parameter);
    if (parameter.schema) completeIntegers(parameter.schema);
  }
  for (const [status, response] of Object.entries(operation.responses)) {
    response.headers = { ...headersOf(Number(status), response, isCounted), ...response.headers };
  }
}

function completeParameter(parameter: Parameter): void {
  const { description, example, most } = PARAMETERS[parameter.name] ?? {};
  if (description !== undefined) parameter.description ??= description;
  if (example !== undefined) parameter.example ??= example;
  if (most !== undefined && parameter.schema) parameter.schema['maxLength'] ??= most;
}

/** What is not bounded otherwise is so by what JavaScript can count. */
function completeIntegers(schema: Schema): void {
  const types = [schema['type']].flat();
  if (types.includes('integer')) {
    schema['minimum'] ??= 0;
    schema['maximum'] ??= Number.MAX_SAFE_INTEGER;
    schema['format'] ??= Number(schema['maximum']) < 2 ** 31 ? 'int32' : 'int64';
  }
  for (const inner of Object.values(schema['properties'] ?? {})) completeIntegers(inner as Schema);
}

function headersOf(status: number, { content }: Response, isCounted: boolean) {
  const schemas = Object.values(content ?? {}).map(({ schema }) => schema?.$ref);
  const names = [
    'X-Request-Id',
    'Access-Control-Allow-Origin',
    ...(isCounted && status < 500 ? ['RateLimit', 'RateLimit-Policy'] : []),
    ...(status === 401 ? ['WWW-Authenticate'] : []),
    ...(status === 429 || status === 503 ? ['Retry-After'] : []),
    ...(schemas.includes(`${SCHEMAS}UserRead`) ? ['ETag'] : []),
  ];
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
}

function problemResponse(codes: ErrorCode[]): Response {
  const examples = Object.fromEntries(
    codes.map((code) => [code, { value: problemBody(problem(code), '/api/v1/…', EXAMPLE_ID) }]),
  );
  const media = { schema: { $ref: `${SCHEMAS}ErrorResponse` }, examples };
  return {
    description: codes.map((code) => `\`${code}\`: ${PROBLEMS[code].title}`).join('. '),
    content: { 'application/problem+json': media },
  };
}

const EXAMPLE_ID = '8f14e45f-ceea-467f-a0e6-c0f2a8a1b1de';
