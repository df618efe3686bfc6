import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Response } from 'express';
import type { Logger } from 'pino';
import { LogThrottles } from '../logging/log-throttle.js';
import { type ErrorCode, problem, problemBody } from '../problems/problem.js';
import { sendProblem } from './problem.filter.js';
import { SECURITY_HEADERS } from './security-headers.js';

/** What Node's server gives the socket of a request that is being answered; its types leave it out. */
interface AnsweredSocket extends Socket {
  _httpMessage?: Response | null;
}

/**
 * A request that Node refuses before Express sees it (or while its body is on the way) gets a problem,
 * too, and a line in the log; Node alone would send a bare status line.
 */
export function onClientError(logger: Logger) {
  const lines = new LogThrottles(logger, 'request.unreadable');
  return (error: NodeJS.ErrnoException, socket: AnsweredSocket): void => {
    const refusal = problem(CODE_OF_CLIENT_ERROR[error.code ?? ''] ?? 'MALFORMED_REQUEST');
    const response = socket._httpMessage;
    if (error.code === 'ECONNRESET' || !socket.writable || response?.headersSent) {
      socket.destroy();
      return;
    }
    if (response) {
      response.setHeader('Connection', 'close');
      // What comes behind a request that could be read takes nothing from it but the connection.
      if (!response.req.complete) sendProblem(response.req, response, refusal);
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
      `X-Request-Id: ${requestId}`,
      ...SECURITY_HEADERS.map(([name, value]) => `${name}: ${value}`),
    ];
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
    if (!lines.allow(refusal.code)) return;
    logger.info({ requestId, method: null, route: null, status, code: refusal.code }, 'request');
  };
}

const CODE_OF_CLIENT_ERROR: Record<string, ErrorCode> = {
  HPE_HEADER_OVERFLOW: 'HEADERS_TOO_LARGE',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 'PAYLOAD_TOO_LARGE',
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
};
