import { isLoopback } from '../config/loopback.js';
import { isObject } from './jwk.js';

const TIMEOUT_MS = 2_000;
const MAX_BYTES = 256 * 1024;
// Better-Auth publishes a replaced key for another 30 days, and may replace one every hour.
const MAX_KEYS = 1000;

/** A JSON Web Key Set as published (RFC 7517 §5). Its keys are not checked yet. */
export interface PublishedKeySet {
  keys: unknown[];
}

/**
 * Fetches a complete key set within two seconds, or rejects. jwks-rsa's own request has no timeout
 * for a body that stalls or breaks off, and no size limit.
 */
export async function fetchKeySet(url: string, stop: AbortSignal): Promise<PublishedKeySet> {
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  try {
    // A redirect is an error like any status other than 200. The keys must be at the configured
    // address.
    const response = await fetch(url, {
      redirect: 'manual',
      headers: { accept: 'application/json' },
      signal: AbortSignal.any([stop, deadline]),
    });
    if (response.status !== 200) {
      await response.body?.cancel();
      throw new Error(`the issuer responded with ${response.status}`);
    }
    return readKeySet(await readBody(response));
  } catch (error) {
    if (deadline.aborted)
      throw new Error(`no complete response within ${TIMEOUT_MS} ms`, { cause: error });
    throw error;
  }
}

/** On any network but loopback, plain http lets an attacker replace the keys. */
export function requireSecureUrl(url: string): void {
  const { protocol, hostname } = new URL(url);
  if (protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname))) return;
  throw new Error(`The key set must be fetched over https, but this address is not https: ${url}`);
}

async function readBody(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  // An error in this loop cancels the download. The size is that of the decompressed body.
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_BYTES) throw new Error(`the response is larger than ${MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function readKeySet(body: Uint8Array): PublishedKeySet {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (error) {
    throw new Error('the response is not JSON', { cause: error });
  }
  const keys = isObject(parsed) ? parsed['keys'] : undefined;
  if (!Array.isArray(keys)) throw new Error('the response is not a key set');
  if (keys.length === 0) throw new Error('the key set is empty');
  if (keys.length > MAX_KEYS) throw new Error(`the key set has more than ${MAX_KEYS} keys`);
  return { keys };
}
