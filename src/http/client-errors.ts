import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { LogThrottles } from '../logging/log-throttle.js';
import { type ErrorCode, problem, problemBody } from '../problems/problem.js';
import { isDiscarding } from './discard-body.js';
import { sendProblem } from './problem.filter.js';
import type { RequestTracker } from './request-tracker.js';
import { SECURITY_HEADERS } from './security-headers.js';

/**
 * Sends a problem and logs a line when Node rejects a request before Express receives it, or during
 * its body. Node alone would send only a status line.
 */
export function onClientError(logger: Logger, tracker: RequestTracker) {
  const throttles = new LogThrottles(logger, 'request.unreadable');
  return (error: NodeJS.ErrnoException, socket: Socket): void => {
    const rejection = problem(CODE_OF_CLIENT_ERROR[error.code ?? ''] ?? 'MALFORMED_REQUEST');
    const response = tracker.currentResponse(socket);
    // A client would take a second response to this request for the response to its next one.
    const isAnswered = response?.headersSent || isDiscarding(socket);
    if (error.code === 'ECONNRESET' || !socket.writable || isAnswered) {
      socket.destroy();
      return;
    }
    if (response) {
      response.setHeader('Connection', 'close');
      // Invalid data behind a complete request closes the connection, but the request is still
      // handled.
      if (!response.req.complete) sendProblem(response.req, response, rejection);
      return;
    }
    const requestId = randomUUID();
    const status = rejection.getStatus();
    const body = JSON.stringify(problemBody(rejection, '', requestId));
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      'Connection: close',
      'Content-Type: application/problem+json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
      `X-Request-Id: ${requestId}`,
      ...SECURITY_HEADERS.map(([name, value]) => `${name}: ${value}`),
    ];
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
    if (!throttles.allow(rejection.code)) return;
    logger.info({ requestId, method: null, route: null, status, code: rejection.code }, 'request');
  };
}

const CODE_OF_CLIENT_ERROR: Record<string, ErrorCode> = {
  HPE_HEADER_OVERFLOW: 'HEADERS_TOO_LARGE',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 'PAYLOAD_TOO_LARGE',
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
};
