import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Reads and discards the rest of a body whose response was sent early. Closing a connection with
 * unread bytes resets it, and a client that is still sending would lose the response. Size and time
 * are limited.
 */
export function discardBody(request: IncomingMessage): void {
  const { socket } = request;
  lastDiscarded.set(socket, request);
  const timer = setTimeout(() => socket.destroy(), MAX_DISCARD_MS);
  let size = 0;
  request.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > MAX_DISCARD_BYTES) socket.destroy();
  });
  // The route may have paused it, and not have read it.
  request.resume();
  request.once('close', () => clearTimeout(timer));
}

/** Whether the rest of a body is being discarded, so its request already has a response. */
export function isDiscarding(socket: Socket): boolean {
  return lastDiscarded.get(socket)?.complete === false;
}

/** The last request of each connection whose body was not complete when the response was sent. */
const lastDiscarded = new WeakMap<Socket, IncomingMessage>();
const MAX_DISCARD_MS = 1000;
const MAX_DISCARD_BYTES = 1_048_576;
