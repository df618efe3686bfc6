import { randomUUID } from 'node:crypto';
import { type IncomingMessage, STATUS_CODES } from 'node:http';
import { isIP, type Socket } from 'node:net';
import { json, type NextFunction, type Request, type Response } from 'express';
import type { Logger } from 'pino';
import { LogThrottles } from '../logging/log-throttle.js';
import { type ErrorCode, type Problem, problem, problemBody } from '../problems/problem.js';
import { sendProblem } from './problem.filter.js';
import { SECURITY_HEADERS } from './security-headers.js';

/** The client's address: behind `TRUST_PROXY` what the proxy wrote, unless that is no address at all. */
export function clientAddress({ ip, socket }: Request): string | null {
  // Only a link-local address has a zone (RFC 4007 §11), and none comes through a proxy.
  if (ip !== undefined && isIP(ip) !== 0 && !ip.includes('%')) return ip;
  return socket.remoteAddress ?? null;
}

type Middleware = (request: Request, response: Response, next: NextFunction) => void;

/**
 * Reads the JSON that came with the request, if anything did. A body of another type would be skipped by
 * Express' parser, and its fields be called missing; HTTP/1.1 asks for a host (RFC 9112 §3.2). `then` is no
 * layer of its own: each costs Express a look at the path.
 */
export function jsonBody(limit: number, then: Middleware) {
  const parse = json({ limit, strict: true, inflate: false });
  return (request: Request, response: Response, next: NextFunction): void => {
    const { host, 'transfer-encoding': coding, 'content-length': length } = request.headers;
    if (host === undefined && request.httpVersionMinor > 0) {
      return sendProblem(request, response, problem('MALFORMED_REQUEST'));
    }
    if (coding === undefined && length === undefined) return then(request, response, next);
    const isEmpty = coding === undefined && Number(length) === 0;
    const refusal = isEmpty ? undefined : refusalOf(request, limit);
    if (refusal) return sendProblem(request, response, refusal);
    if (coding !== undefined) limitBody(limit, request, response);
    parse(request, response, (error) => (error ? next(error) : then(request, response, next)));
  };
}

/** What the headers say about a body is enough to refuse it, before a byte of it is read. */
function refusalOf(request: Request, limit: number): Problem | undefined {
  const { headers } = request;
  if (Number(headers['content-length']) > limit) return tooLarge(limit);
  if (request.is('application/json') === false) return problem('UNSUPPORTED_MEDIA_TYPE');
  const charsets = headers['content-type']?.matchAll(CHARSET) ?? [];
  if ([...charsets].some(([, name = '']) => name.toLowerCase() !== 'utf-8')) {
    return problem('UNSUPPORTED_MEDIA_TYPE', { detail: 'Send the body in UTF-8.' });
  }
  // A few bytes of gzip or brotli can cost more time than the largest body of plain text.
  if (/^(identity)?$/i.test(headers['content-encoding'] ?? '')) return undefined;
  return problem('UNSUPPORTED_MEDIA_TYPE', {
    detail: 'Send the body without `Content-Encoding`: compressed bodies are not accepted.',
    headers: { 'Accept-Encoding': 'identity' },
  });
}

/**
 * The parser would read a body without a length to its end before it refuses it. A chunk of one byte costs
 * as much time as one of many, so that small ones are limited, too.
 */
function limitBody(limit: number, request: Request, response: Response): void {
  let [size, chunks] = [0, 0];
  request.on('data', (chunk: Buffer) => {
    size += chunk.length;
    chunks += 1;
    if (response.headersSent) return;
    if (size > limit) return sendProblem(request, response, tooLarge(limit));
    if (chunks <= MAX_SMALL_CHUNKS + size / MIN_CHUNK_BYTES) return;
    sendProblem(request, response, problem('PAYLOAD_TOO_LARGE', { detail: TOO_SMALL_CHUNKS }));
    request.destroy();
  });
}

const MAX_SMALL_CHUNKS = 128;
const MIN_CHUNK_BYTES = 64;
const TOO_SMALL_CHUNKS = `The body has too many chunks of less than ${MIN_CHUNK_BYTES} bytes.`;

function tooLarge(limit: number): Problem {
  return problem('PAYLOAD_TOO_LARGE', { detail: `A body may have ${limit} bytes.` });
}

const CHARSET = /;\s*charset\s*=\s*"?([^";\s]*)/gi;

/**
 * Takes the rest of a body that was answered before it was there. A connection that is closed with bytes
 * left in it is reset, and a client that still sends would lose the answer. More than a little is not taken.
 */
export function discardRest(request: IncomingMessage): void {
  const { socket } = request;
  const timer = setTimeout(() => socket.destroy(), MAX_DISCARD_MS);
  let size = 0;
  request.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > MAX_DISCARD_BYTES) socket.destroy();
  });
  request.once('close', () => clearTimeout(timer));
}

const MAX_DISCARD_MS = 1000;
const MAX_DISCARD_BYTES = 1_048_576;

/**
 * A target that is a whole URL (RFC 9112 §3.2.2) becomes its path. Express knows some of these; where it
 * finds no path, as in `x://y`, it goes past every layer and answers by itself, after us and in HTML.
 */
export function normalizeTarget(request: IncomingMessage): void {
  const { url = '' } = request;
  if (url.startsWith('/') || url === '*') return;
  const { pathname, search } = URL.parse(url) ?? { pathname: '', search: '' };
  request.url = pathname.startsWith('/') ? pathname + search : '/';
}

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
