import {
  type ArgumentsHost,
  Catch,
  type ExceptionFilter,
  HttpException,
  ServiceUnavailableException,
} from '@nestjs/common';
import type { Request, Response } from 'express';
import type { Logger } from 'pino';
import { isDatabaseUnavailable } from '../database/postgres-errors.js';
import { isRetryable } from '../database/transaction-runner.js';
import { allowedMethods } from './allowed-methods.js';
import { unauthorized } from '../problems/unauthorized.js';
import { describeError } from '../logging/describe-error.js';
import { LogThrottle } from '../logging/log-throttle.js';
import {
  type ErrorCode,
  Problem,
  problem,
  problemBody,
  RETRY_AFTER_SECONDS,
  unavailable,
} from '../problems/problem.js';

/** The one way out for errors: whatever was thrown becomes a problem, and nothing internal goes with it. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  private readonly faults: LogThrottle;
  private readonly outages: LogThrottle;

  constructor(private readonly log: Logger) {
    this.faults = new LogThrottle(log, 'fault');
    this.outages = new LogThrottle(log, 'unavailable');
  }

  catch(thrown: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<Request>();
    const response = host.switchToHttp().getResponse<Response>();
    // The answer went out already: the deadline was quicker. A fault is worth its line all the same.
    const isLate = response.headersSent;
    if (isLate && (isHealthReport(thrown) || isHeadersSentError(thrown))) return;
    if (isHealthReport(thrown)) {
      response
        .status(503)
        .set('Retry-After', String(RETRY_AFTER_SECONDS))
        .json(thrown.getResponse());
      return;
    }
    const refusal = toProblem(thrown, request);
    this.report(thrown, refusal, request);
    if (!isLate) sendProblem(request, response, refusal);
  }

  /** Our own faults whole. An outage, which every request meets, in one line without frames. */
  private report(thrown: unknown, { code, details }: Problem, { requestId }: Request): void {
    if (code === 'INTERNAL_ERROR' && this.faults.allow()) {
      this.log.error({ err: thrown, requestId, code });
    }
    if (code !== 'SERVICE_UNAVAILABLE' || !this.outages.allow()) return;
    const { stack: _, ...cause } = describeError(thrown);
    this.log.warn({ cause, requestId, code, reason: details.detail }, 'unavailable');
  }
}

export function sendProblem(request: Request, response: Response, refusal: Problem): void {
  request.problemCode = refusal.code;
  response
    .status(refusal.getStatus())
    .set(refusal.details.headers ?? {})
    .type('application/problem+json')
    .send(JSON.stringify(problemBody(refusal, pathOf(request), request.requestId)));
}

/** What Node throws at a route that ends well, but after the deadline. */
function isHeadersSentError(thrown: unknown): boolean {
  // Not `instanceof Error`: under Jest, Node's own errors come from another realm.
  if (typeof thrown !== 'object' || thrown === null) return false;
  return Reflect.get(thrown, 'code') === 'ERR_HTTP_HEADERS_SENT';
}

/** Terminus throws what a probe should read. It is an answer and no problem. */
function isHealthReport(thrown: unknown): thrown is ServiceUnavailableException {
  if (!(thrown instanceof ServiceUnavailableException)) return false;
  const body = thrown.getResponse();
  return typeof body === 'object' && 'details' in body;
}

/** Without the query, which may hold what a client should not have put there. */
function pathOf({ originalUrl, url }: Request): string {
  // Express sets the first one, and has not yet seen a request that is refused before it.
  return ((originalUrl as string | undefined) ?? url).split('?', 1)[0] ?? '/';
}

function toProblem(thrown: unknown, request: Request): Problem {
  if (thrown instanceof Problem) return thrown;
  if (isDatabaseUnavailable(thrown)) return unavailable('The database does not answer.');
  // Tried several times, and still in somebody's way.
  if (isRetryable(thrown)) return unavailable('Others are changing the same.');

  // Nest's own exceptions and those of Express' parsers carry a status and little else.
  const status = thrown instanceof HttpException ? thrown.getStatus() : statusOf(thrown);
  if (status === 404) return notFound(request);
  if (status === 401) return unauthorized('AUTH_TOKEN_INVALID');
  const isTheirs = status >= 400 && status < 500;
  return problem(CODE_OF_STATUS[status] ?? (isTheirs ? 'MALFORMED_REQUEST' : 'INTERNAL_ERROR'));
}

function notFound(request: Request): Problem {
  const methods = allowedMethods(request);
  if (methods.length === 0) return problem('NOT_FOUND');
  return problem('METHOD_NOT_ALLOWED', { headers: { Allow: methods.join(', ') } });
}

function statusOf(thrown: unknown): number {
  const status = thrown instanceof Error && 'status' in thrown ? thrown.status : undefined;
  return typeof status === 'number' ? status : 500;
}

const CODE_OF_STATUS: Record<number, ErrorCode> = {
  403: 'AUTH_FORBIDDEN',
  409: 'CONFLICT',
  412: 'PRECONDITION_FAILED',
  413: 'PAYLOAD_TOO_LARGE',
  415: 'UNSUPPORTED_MEDIA_TYPE',
  422: 'UNPROCESSABLE',
  429: 'RATE_LIMITED',
};
