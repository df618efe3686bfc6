import type { IncomingMessage } from 'node:http';

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
