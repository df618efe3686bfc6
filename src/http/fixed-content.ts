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
 * Answers with content that stays the same while the process runs. It is made and compressed at the
 * first request. A client may keep it, and asks each time whether it is still the same.
 */
export function fixedContent(type: string, make: () => Promise<Buffer> | string): RequestHandler {
  let made: Promise<PreparedContent> | undefined;
  const makeOnce = () =>
    (made ??= prepare(make).catch((error: unknown) => {
      made = undefined;
      throw error;
    }));
  return async (request: Request, response: Response) => {
    const { plain, compressed, etag } = await makeOnce();
    response.set({ 'Cache-Control': 'public, no-cache', ETag: etag }).vary('Accept-Encoding');
    const isCompressed = request.acceptsEncodings('gzip', 'identity') === 'gzip';
    if (isCompressed) response.set('Content-Encoding', 'gzip');
    // Express answers 304 where the client has it already.
    response.type(type).send(isCompressed ? compressed : plain);
  };
}

async function prepare(make: () => Promise<Buffer> | string): Promise<PreparedContent> {
  const plain = Buffer.from(await make());
  const compressed = await promisify(gzip)(plain, { level: 9 });
  // Weak, because both codings have it.
  return { plain, compressed, etag: `W/"${hash('sha256', plain, 'base64url').slice(0, 27)}"` };
}
