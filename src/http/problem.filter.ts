import { STATUS_CODES } from 'node:http';
import {
  type ArgumentsHost,
  Catch,
  type ExceptionFilter,
  HttpException,
  ServiceUnavailableException,
} from '@nestjs/common';
import { NotFoundError } from '@mikro-orm/core';
import type { Request, Response } from 'express';
import type { Logger } from 'pino';
import {
  isDatabaseUnavailable,
  rejectedValue,
  type RejectedValue,
} from '../database/postgres-errors.js';
import { isRetryable } from '../database/transaction-runner.js';
import { isResolver, requestOf, responseOf } from './request-of.js';
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

/** Converts every exception to a problem without internal details. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  private readonly internalErrors: LogThrottle;
  private readonly outages: LogThrottle;
  private readonly rejectedValues: LogThrottle;

  constructor(private readonly log: Logger) {
    this.internalErrors = new LogThrottle(log, 'fault');
    this.outages = new LogThrottle(log, 'unavailable');
    this.rejectedValues = new LogThrottle(log, 'rejected-value');
  }

  catch(thrown: unknown, host: ArgumentsHost): unknown {
    const request = requestOf(host);
    if (!request) throw thrown;
    return isResolver(host)
      ? this.problemOfResolver(thrown, request)
      : this.respond(thrown, request, responseOf(request));
  }

  private respond(thrown: unknown, request: Request, response: Response): void {
    if (isAbortedUpload(thrown, request)) return;
    // The deadline has already sent a response. An internal error is logged nevertheless.
    const isLate = response.headersSent;
    if (isLate && (isHealthReport(thrown) || isHeadersSentError(thrown))) return;
    if (isHealthReport(thrown)) {
      response
        .status(503)
        .set('Retry-After', String(RETRY_AFTER_SECONDS))
        .json(thrown.getResponse());
      return;
    }
    const error = toProblem(thrown, request);
    this.report(thrown, error, request);
    if (!isLate) sendProblem(request, response, error);
  }

  /** Returned to GraphQL, which sends its extensions. GraphQL's own errors are for the client. */
  private problemOfResolver(thrown: unknown, request: Request): unknown {
    if (thrown instanceof Error && thrown.name === 'GraphQLError') return thrown;
    const error = toProblem(thrown, request);
    this.report(thrown, error, request);
    request.problemCode = error.code;
    const extensions = problemBody(error, pathOf(request), request.requestId);
    return Object.assign(error, { extensions });
  }

  /** Logs internal errors in full. An outage affects every request, so its lines have no stack. */
  private report(thrown: unknown, { code, details }: Problem, { requestId }: Request): void {
    if (code === 'INTERNAL_ERROR' && this.internalErrors.allow()) {
      this.log.error({ err: thrown, requestId, code });
    }
    if (rejectedValue(thrown) && this.rejectedValues.allow()) {
      this.log.info({ err: thrown, requestId, code }, 'PostgreSQL rejected a value');
    }
    if (code !== 'SERVICE_UNAVAILABLE' || !this.outages.allow()) return;
    const { stack: _, ...cause } = describeError(thrown);
    this.log.warn({ cause, requestId, code, reason: details.detail }, 'unavailable');
  }
}

export function sendProblem(request: Request, response: Response, error: Problem): void {
  request.problemCode = error.code;
  response
    .status(error.getStatus())
    .set(error.details.headers ?? {})
    .type('application/problem+json')
    .send(JSON.stringify(problemBody(error, pathOf(request), request.requestId)));
}

/** Multer throws these errors when the connection of an upload closes. No response is possible. */
function isAbortedUpload(thrown: unknown, { destroyed }: Request): boolean {
  return destroyed && thrown instanceof Error && /^Request (aborted|closed)$/.test(thrown.message);
}

/** Node throws this error when a handler responds after the deadline. */
function isHeadersSentError(thrown: unknown): boolean {
  // Not `instanceof Error`: under Jest, Node's own errors come from another realm.
  if (typeof thrown !== 'object' || thrown === null) return false;
  return Reflect.get(thrown, 'code') === 'ERR_HTTP_HEADERS_SENT';
}

/** Terminus throws the report of a failed probe. It is a response body and not a problem. */
function isHealthReport(thrown: unknown): thrown is ServiceUnavailableException {
  if (!(thrown instanceof ServiceUnavailableException)) return false;
  const body = thrown.getResponse();
  return typeof body === 'object' && 'details' in body;
}

/** The path without the query, which may contain secrets by mistake of the client. */
function pathOf({ originalUrl, url }: Request): string {
  // Express sets `originalUrl`, but some requests are rejected before Express handles them.
  return ((originalUrl as string | undefined) ?? url).split('?', 1)[0] ?? '/';
}

function toProblem(thrown: unknown, request: Request): Problem {
  if (thrown instanceof Problem) return thrown;
  const rejected = rejectedValue(thrown);
  if (rejected) return PROBLEM_OF_VALUE[rejected]();
  if (thrown instanceof NotFoundError) return problem('NOT_FOUND');
  if (isDatabaseUnavailable(thrown)) return unavailable('The database is unavailable.');
  // The retries of the transaction have failed.
  if (isRetryable(thrown)) return unavailable('A concurrent change prevented this change.');
  if (thrown instanceof HttpException) return fromHttpException(thrown, request);

  // Errors of Express and its parsers have a status and little else.
  const status = statusOf(thrown);
  const isClientError = status >= 400 && status < 500;
  return problem(
    CODE_OF_STATUS[status] ?? (isClientError ? 'MALFORMED_REQUEST' : 'INTERNAL_ERROR'),
  );
}

/** Keeps the status and the message of an exception that a handler throws on purpose. */
function fromHttpException(thrown: HttpException, request: Request): Problem {
  const status = thrown.getStatus();
  // Nest itself throws this one for an unknown route, and quotes the path and the query.
  if (status === 404 && request.route === undefined) return problem('NOT_FOUND');
  if (status === 503) return unavailable('The service is temporarily unavailable.');
  if (status >= 500) return problem('INTERNAL_ERROR');
  const detail = messageOf(thrown);
  // The 401 of a public route concerns no token, but for example the signature of a webhook.
  if (status === 401 && request.principal) {
    return unauthorized('AUTH_TOKEN_INVALID', undefined, detail);
  }
  const details = detail === undefined ? {} : { detail };
  const code = CODE_OF_STATUS[status];
  return code ? problem(code, details) : problem('CLIENT_ERROR', { ...details, status });
}

/** The message of the developer, or undefined if it is only the name of the status. */
function messageOf(thrown: HttpException): string | undefined {
  const response = thrown.getResponse();
  const message: unknown =
    typeof response === 'string' ? response : Reflect.get(response, 'message');
  const text = Array.isArray(message) ? message.join('. ') : message;
  return typeof text === 'string' && text !== STATUS_CODES[thrown.getStatus()] ? text : undefined;
}

function statusOf(thrown: unknown): number {
  const status = thrown instanceof Error && 'status' in thrown ? thrown.status : undefined;
  return typeof status === 'number' ? status : 500;
}

const CODE_OF_STATUS: Record<number, ErrorCode> = {
  400: 'MALFORMED_REQUEST',
  403: 'AUTH_FORBIDDEN',
  404: 'NOT_FOUND',
  409: 'CONFLICT',
  412: 'PRECONDITION_FAILED',
  413: 'PAYLOAD_TOO_LARGE',
  415: 'UNSUPPORTED_MEDIA_TYPE',
  422: 'UNPROCESSABLE',
  429: 'RATE_LIMITED',
};

/** Defaults for your own tables. Check a value first if the client needs to know more. */
const PROBLEM_OF_VALUE: Record<RejectedValue, () => Problem> = {
  'unreadable-id': () => problem('NOT_FOUND'),
  'nul-character': () =>
    problem('MALFORMED_REQUEST', { detail: 'A text contains a NUL character.' }),
  'too-long': () => problem('UNPROCESSABLE', { detail: 'A text is too long.' }),
  constraint: () => problem('CONFLICT'),
};
