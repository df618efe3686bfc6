import { isLoopback } from '../config/loopback.js';
import { isObject } from './jwk.js';

const DEADLINE_MS = 2_000;
const MAX_BYTES = 256 * 1024;
// Better-Auth publishes a replaced key for another 30 days, and may replace one every hour.
const MAX_KEYS = 1000;

/** A JSON Web Key Set as published (RFC 7517 §5); its members are still to be judged. */
export interface PublishedKeySet {
  keys: unknown[];
}

/**
 * Fetches a key set whole within two seconds, or rejects. jwks-rsa's own request has no end when a
 * body stalls or breaks off, and reads as much as it is sent.
 */
export async function fetchKeySet(url: string, stop: AbortSignal): Promise<PublishedKeySet> {
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  try {
    // A redirect is an answer like any other that is not 200: the keys are where the operator said
    // they are, or nowhere.
    const response = await fetch(url, {
      redirect: 'manual',
      headers: { accept: 'application/json' },
      signal: AbortSignal.any([stop, deadline]),
    });
    if (response.status !== 200) {
      await response.body?.cancel();
      throw new Error(`the issuer answered ${response.status}`);
    }
    return readKeySet(await readBody(response));
  } catch (error) {
    if (deadline.aborted) throw new Error(`no whole answer in ${DEADLINE_MS} ms`, { cause: error });
    throw error;
  }
}

/** Keys fetched in the clear are anyone's on the way; only on one's own machine is there no way. */
export function requireSecureUrl(url: string): void {
  const { protocol, hostname } = new URL(url);
  if (protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname))) return;
  throw new Error(`The key set must be fetched over https, and this address is not: ${url}`);
}

async function readBody(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  // Leaving this loop by an error cancels the download. What is counted is what came out of any
  // compression.
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_BYTES) throw new Error(`the answer is larger than ${MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function readKeySet(body: Uint8Array): PublishedKeySet {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (error) {
    throw new Error('the answer is not JSON', { cause: error });
  }
  const keys = isObject(parsed) ? parsed['keys'] : undefined;
  if (!Array.isArray(keys)) throw new Error('the answer is not a key set');
  if (keys.length === 0) throw new Error('the key set is empty');
  if (keys.length > MAX_KEYS) throw new Error(`the key set has more than ${MAX_KEYS} keys`);
  return { keys };
}
