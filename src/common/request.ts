import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import { isIP, type Socket } from 'node:net';
import type { NextFunction, Request, Response } from 'express';
import type { Logger } from 'pino';
import { requestBegan } from './deadline.js';
import { LineBudget } from './line-budget.js';
import { type ErrorCode, problem, problemBody, unavailable } from './problem.js';
import { sendProblem } from './problem.filter.js';

declare module 'express-serve-static-core' {
  interface Request {
    /** The caller's `X-Request-Id` where it is sane, else one of ours. */
    requestId: string;
    /** What the log line of this request says beside the usual, filled in on the way. */
    problemCode?: string;
    userId?: string;
    impersonatedBy?: string;
  }
}

/** Gives the request its id and, when it is over, one line in the log. */
export function traceRequests(logger: Logger) {
  const refusals = new LineBudget(logger, 'request');
  return (request: Request, response: Response, next: NextFunction): void => {
    const began = performance.now();
    const sent = request.headers['x-request-id'];
    request.requestId = typeof sent === 'string' && SANE_ID.test(sent) ? sent : randomUUID();
    response.setHeader('X-Request-Id', request.requestId);
    // An answer is true for one moment and one caller.
    response.setHeader('Cache-Control', 'no-store');
    response.once('close', () => {
      if (isStrangersRefusal(request, response) && !refusals.spend()) return;
      logger.info(
        {
          requestId: request.requestId,
          method: request.method,
          // The route's pattern, not the path: it holds no ids and makes few distinct values.
          route: (request.route as { path?: string } | undefined)?.path ?? null,
          // Node calls it 200 before anyone has said so.
          status: response.headersSent ? response.statusCode : null,
          ms: Math.round((performance.now() - began) * 10) / 10,
          // The client left before the answer was through.
          ...(response.writableFinished ? {} : { aborted: true }),
          ...(request.userId === undefined ? {} : { userId: request.userId }),
          ...(request.impersonatedBy === undefined
            ? {}
            : { impersonatedBy: request.impersonatedBy }),
          ...(request.problemCode === undefined ? {} : { code: request.problemCode }),
        },
        'request',
      );
    });
    next();
  };
}

/** What anyone can make us answer as often as they like. */
function isStrangersRefusal({ userId }: Request, { statusCode }: Response): boolean {
  return statusCode === 429 || (userId === undefined && statusCode >= 400 && statusCode < 500);
}

/** The client's address: behind `TRUST_PROXY` what the proxy wrote, unless that is no address at all. */
export function ipOf({ ip, socket }: Request): string | null {
  if (ip !== undefined && isIP(ip.replace(/%.*$/, '')) !== 0) return ip;
  return socket.remoteAddress ?? null;
}

const SANE_ID = /^[A-Za-z0-9._:-]{1,128}$/;

/** A body of another type would be skipped by Express' JSON parser, and its fields be called missing. */
export function refuseForeignBodies(
  request: Request,
  response: Response,
  next: NextFunction,
): void {
  const hasBody =
    request.headers['transfer-encoding'] !== undefined ||
    Number(request.headers['content-length'] ?? 0) > 0;
  if (hasBody && request.is('application/json') === false) {
    sendProblem(request, response, problem('UNSUPPORTED_MEDIA_TYPE'));
    return;
  }
  next();
}

/**
 * Connecting, asking and asking again each have a limit of their own; this one is for their sum. Nobody
 * waits longer for an answer, whatever the database does meanwhile.
 */
export function answerInTime(milliseconds: number) {
  return (request: Request, response: Response, next: NextFunction): void => {
    const timer = setTimeout(() => {
      if (response.headersSent) return;
      sendProblem(request, response, unavailable('The answer took too long.'));
    }, milliseconds);
    response.once('close', () => clearTimeout(timer));
    if (request.method === 'GET' || request.method === 'HEAD') next();
    else requestBegan.run(performance.now(), next);
  };
}

/** What Node's server gives the socket of a request that is being answered; its types leave it out. */
interface AnsweredSocket extends Socket {
  _httpMessage?: Response | null;
}

/**
 * A request that Node refuses before Express sees it (or while its body is on the way) gets a problem,
 * too, and a line in the log; Node alone would send a bare status line.
 */
export function refuseUnreadable(logger: Logger) {
  return (error: NodeJS.ErrnoException, socket: AnsweredSocket): void => {
    const refusal = problem(CODE_OF_FAULT[error.code ?? ''] ?? 'MALFORMED_REQUEST');
    const response = socket._httpMessage;
    if (error.code === 'ECONNRESET' || !socket.writable || response?.headersSent) {
      socket.destroy();
      return;
    }
    if (response) {
      response.setHeader('Connection', 'close');
      sendProblem(response.req, response, refusal);
      return;
    }
    const requestId = randomUUID();
    const status = refusal.getStatus();
    const body = JSON.stringify(problemBody(refusal, '', requestId));
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      'Connection: close',
      'Content-Type: application/problem+json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
      'Cache-Control: no-store',
      `X-Request-Id: ${requestId}`,
    ];
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
    logger.info({ requestId, method: null, route: null, status, code: refusal.code }, 'request');
  };
}

const CODE_OF_FAULT: Record<string, ErrorCode> = {
  HPE_HEADER_OVERFLOW: 'HEADERS_TOO_LARGE',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 'PAYLOAD_TOO_LARGE',
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
};
