interface EncodedBody {
  bytes: Buffer;
  type: string;
}

/**
 * Encodes the body of a request. `FormData`, a `Blob` and text have the content type that `fetch`
 * gives them. A `Buffer` is `application/octet-stream`. Any other value becomes JSON.
 */
export async function encodeBody(body: unknown): Promise<EncodedBody> {
  const isJson = !(
    typeof body === 'string' ||
    Buffer.isBuffer(body) ||
    body instanceof Blob ||
    body instanceof FormData
  );
  const encoded = new Response(isJson ? JSON.stringify(body) : body);
  const ownType = encoded.headers.get('content-type') ?? 'application/octet-stream';
  return {
    bytes: Buffer.from(await encoded.arrayBuffer()),
    type: isJson ? 'application/json' : ownType,
  };
}
