import { json, type NextFunction, type Request, type Response } from 'express';
import { type Problem, problem } from '../problems/problem.js';
import { sendProblem } from './problem.filter.js';

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
