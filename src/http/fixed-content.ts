import { hash } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Request, RequestHandler, Response } from 'express';

interface PreparedContent {
  plain: Buffer;
  compressed: Buffer;
  etag: string;
}

/**
 * Sends content that does not change while the process runs. The first request creates and
 * compresses it. Clients may cache it, but must revalidate it for each use.
 */
export function fixedContent(type: string, create: () => Promise<Buffer> | string): RequestHandler {
  let content: Promise<PreparedContent> | undefined;
  const prepareOnce = () =>
    (content ??= prepare(create).catch((error: unknown) => {
      content = undefined;
      throw error;
    }));
  return async (request: Request, response: Response) => {
    const { plain, compressed, etag } = await prepareOnce();
    response.set({ 'Cache-Control': 'public, no-cache', ETag: etag }).vary('Accept-Encoding');
    const isCompressed = request.acceptsEncodings('gzip', 'identity') === 'gzip';
    if (isCompressed) response.set('Content-Encoding', 'gzip');
    // Express responds with 304 if the client has the current version.
    response.type(type).send(isCompressed ? compressed : plain);
  };
}

async function prepare(create: () => Promise<Buffer> | string): Promise<PreparedContent> {
  const plain = Buffer.from(await create());
  const compressed = await promisify(gzip)(plain, { level: 9 });
  // The tag is weak because the plain and the compressed content share it.
  return { plain, compressed, etag: `W/"${hash('sha256', plain, 'base64url').slice(0, 27)}"` };
}
