import type { IncomingMessage } from 'node:http';

/**
 * Reads and discards the rest of a body whose response was sent early. Closing a connection with
 * unread bytes resets it, and a client that is still sending would lose the response. Size and time
 * are limited.
 */
export function discardBody(request: IncomingMessage): void {
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
