import type { Request } from 'express';
import { type Problem, problem } from '../problems/problem.js';
import type { BodyRules } from './body-rules.js';
import { sendProblem } from './problem.filter.js';
import { responseOf } from './request-of.js';

/** Whether the request has a body that is not read yet. */
export function hasUnreadBody(request: Request): boolean {
  const { 'transfer-encoding': coding, 'content-length': length } = request.headers;
  if (coding === undefined && length === undefined) return false;
  return (coding !== undefined || Number(length) !== 0) && !request.readableEnded;
}

/** Rejects a body by its headers, before its first byte is read. */
export function checkBodyHeaders(request: Request, { types, text }: BodyRules, limit: number) {
  const { headers } = request;
  const coding = headers['transfer-encoding'];
  // RFC 9112 §6.1: other codings, and chunks in HTTP/1.0, can mean another body to a proxy.
  if (coding !== undefined && (coding.toLowerCase() !== 'chunked' || request.httpVersion === '1.0'))
    throw problem('MALFORMED_REQUEST', { detail: 'The transfer coding is not supported.' });
  if (Number(headers['content-length']) > limit) throw tooLarge(limit);
  if (request.is(types) === false) throw problem('UNSUPPORTED_MEDIA_TYPE');
  const charsets = text ? (headers['content-type']?.matchAll(CHARSET) ?? []) : [];
  if ([...charsets].some(([, name = '']) => name.toLowerCase() !== 'utf-8')) {
    throw problem('UNSUPPORTED_MEDIA_TYPE', { detail: 'The body must be encoded in UTF-8.' });
  }
  // Decompressing a few bytes of gzip or brotli can take longer than parsing the largest body.
  if (/^(identity)?$/i.test(headers['content-encoding'] ?? '')) return;
  throw problem('UNSUPPORTED_MEDIA_TYPE', {
    detail: 'Compressed bodies are not accepted. Send the body without `Content-Encoding`.',
    headers: { 'Accept-Encoding': 'identity' },
  });
}

/** Reads the whole body. Rejects at the first byte over the limit. */
export async function readBody(request: Request, limit: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  const receive = (chunk: Buffer) => chunks.push(chunk);
  const fail = () => reject(problem('MALFORMED_REQUEST'));
  limitBody(request, limit, reject);
  request.on('data', receive).once('end', () => resolve(Buffer.concat(chunks)));
  // The client has disconnected, perhaps before this function was called.
  if (request.destroyed) fail();
  else request.once('close', fail);
  try {
    return await promise;
  } finally {
    request.off('data', receive).off('close', fail);
  }
}

/** Limits a body that an interceptor reads later. */
export function limitUnreadBody(request: Request, limit: number): void {
  // A listener would start the stream before the interceptor reads it. Its `pipe` resumes it.
  request.pause();
  limitBody(request, limit, (error) => {
    // The interceptor never sees the end, so that it does not call the handler.
    request.unpipe();
    // The reader refused the body before its end. A second response is not possible.
    if (responseOf(request).headersSent) return void request.destroy();
    // Nest's interceptors close the connection if the body is not complete.
    responseOf(request).setHeader('Connection', 'close');
    sendProblem(request, responseOf(request), error);
    request.resume();
  });
}

/**
 * Calls `reject` at the first byte over the limit. A chunk of one byte takes as much time as a
 * large chunk, so the number of small chunks is limited.
 */
function limitBody(request: Request, limit: number, reject: (error: Problem) => void): void {
  let [size, chunks] = [0, 0];
  const count = (chunk: Buffer) => {
    size += chunk.length;
    chunks += 1;
    if (size > limit) {
      request.off('data', count);
      return reject(tooLarge(limit));
    }
    if (chunks <= MAX_SMALL_CHUNKS + size / MIN_CHUNK_BYTES) return;
    request.off('data', count);
    if (!responseOf(request).headersSent) {
      sendProblem(request, responseOf(request), problem('PAYLOAD_TOO_LARGE', TOO_SMALL_CHUNKS));
    }
    // The rest of the body would take the same time.
    request.destroy();
  };
  request.on('data', count);
}

const MAX_SMALL_CHUNKS = 128;
const MIN_CHUNK_BYTES = 64;
const TOO_SMALL_CHUNKS = {
  detail: `The body has too many chunks smaller than ${MIN_CHUNK_BYTES} bytes.`,
};

function tooLarge(limit: number): Problem {
  return problem('PAYLOAD_TOO_LARGE', { detail: `The body is limited to ${limit} bytes.` });
}

const CHARSET = /;\s*charset\s*=\s*"?([^";\s]*)/gi;
