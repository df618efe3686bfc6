import { json, type NextFunction, type Request, type Response } from 'express';
import { type Problem, problem } from '../problems/problem.js';
import { sendProblem } from './problem.filter.js';

type Middleware = (request: Request, response: Response, next: NextFunction) => void;

/**
 * Parses a JSON body and rejects a body of another type, which Express' parser would ignore. Also
 * rejects HTTP/1.1 requests without a host (RFC 9112 §3.2). It calls `then` itself, because Express
 * matches the path again for each middleware.
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
    const error = isEmpty ? undefined : checkBodyHeaders(request, limit);
    if (error) return sendProblem(request, response, error);
    if (coding !== undefined) limitBody(limit, request, response);
    parse(request, response, (failure) =>
      failure ? next(failure) : then(request, response, next),
    );
  };
}

/** Rejects a body by its headers, before its first byte is read. */
function checkBodyHeaders(request: Request, limit: number): Problem | undefined {
  const { headers } = request;
  if (Number(headers['content-length']) > limit) return tooLarge(limit);
  if (request.is('application/json') === false) return problem('UNSUPPORTED_MEDIA_TYPE');
  const charsets = headers['content-type']?.matchAll(CHARSET) ?? [];
  if ([...charsets].some(([, name = '']) => name.toLowerCase() !== 'utf-8')) {
    return problem('UNSUPPORTED_MEDIA_TYPE', { detail: 'The body must be encoded in UTF-8.' });
  }
  // Decompressing a few bytes of gzip or brotli can take longer than parsing the largest body.
  if (/^(identity)?$/i.test(headers['content-encoding'] ?? '')) return undefined;
  return problem('UNSUPPORTED_MEDIA_TYPE', {
    detail: 'Compressed bodies are not accepted. Send the body without `Content-Encoding`.',
    headers: { 'Accept-Encoding': 'identity' },
  });
}

/**
 * Limits a body without a declared length, which the parser would read to its end before rejecting
 * it. A chunk of one byte takes as much time as a large chunk, so the number of small chunks is
 * limited.
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
const TOO_SMALL_CHUNKS = `The body has too many chunks smaller than ${MIN_CHUNK_BYTES} bytes.`;

function tooLarge(limit: number): Problem {
  return problem('PAYLOAD_TOO_LARGE', { detail: `The body is limited to ${limit} bytes.` });
}

const CHARSET = /;\s*charset\s*=\s*"?([^";\s]*)/gi;
