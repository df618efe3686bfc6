import type { NestExpressApplication } from '@nestjs/platform-express';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import { PROBLEM_MARK } from './common/problem.decorator.js';
import { ErrorResponse } from './common/problem.dto.js';
import { type ErrorCode, PROBLEMS, problem, problemBody } from './common/problem.js';

/** The OpenAPI document: what the decorators say, and what every route has in common. */
export function describeApi(app: NestExpressApplication): OpenAPIObject {
  const document = SwaggerModule.createDocument(
    app,
    new DocumentBuilder()
      .setOpenAPIVersion('3.1.0')
      .setTitle('Gatehouse')
      .setDescription(
        'Users, roles, bans, sessions and linked accounts of a Better-Auth installation. Every request is decided by what is true now.',
      )
      .setVersion('1')
      .addBearerAuth({ type: 'http', scheme: 'bearer', bearerFormat: 'JWT' }, BEARER)
      .build(),
    { extraModels: [ErrorResponse] },
  );
  for (const [path, operation] of operationsOf(document)) completeOperation(path, operation);
  return document;
}

const BEARER = 'bearer';

/** Any route that asks for a token can answer these. */
const OF_EVERY_PRIVATE_ROUTE: ErrorCode[] = [
  'AUTH_MISSING_TOKEN',
  'AUTH_TOKEN_INVALID',
  'AUTH_TOKEN_EXPIRED',
  'AUTH_SESSION_REVOKED',
  'USER_BANNED',
  'SERVICE_UNAVAILABLE',
];

/** Probes are not counted. */
const OF_EVERY_COUNTED_ROUTE: ErrorCode[] = ['RATE_LIMITED'];

/** What `@Roles`, `@SelfOrAdmin` and `@RequireVerifiedEmail` mark a route with. */
const DEMANDS: ErrorCode[] = ['AUTH_FORBIDDEN', 'EMAIL_NOT_VERIFIED'];

type Operation = Record<string, unknown> & { responses: Record<string, unknown> };

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
  delete operation['x-public'];
  operation['security'] = isPublic ? [] : [{ [BEARER]: [] }];
  for (const key of marked) delete operation[key];
  const codes = new Set([
    ...(isPublic ? [] : OF_EVERY_PRIVATE_ROUTE),
    ...(path.startsWith('/health') ? [] : OF_EVERY_COUNTED_ROUTE),
    ...marked.map((key) => key.slice(PROBLEM_MARK.length) as ErrorCode),
  ]);
  for (const [status, ofStatus] of Map.groupBy(codes, (code) => PROBLEMS[code].status)) {
    operation.responses[status] = problemResponse(ofStatus);
  }
}

function problemResponse(codes: ErrorCode[]) {
  const examples = Object.fromEntries(
    codes.map((code) => [code, { value: problemBody(problem(code), '/api/v1/…', EXAMPLE_ID) }]),
  );
  return {
    description: codes.map((code) => `\`${code}\`: ${PROBLEMS[code].title}`).join('. '),
    content: {
      'application/problem+json': {
        schema: { $ref: '#/components/schemas/ErrorResponse' },
        examples,
      },
    },
  };
}

const EXAMPLE_ID = '8f14e45f-ceea-467f-a0e6-c0f2a8a1b1de';
