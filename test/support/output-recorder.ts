import type { Socket } from 'node:net';

/** Records everything that is written to a socket, below the code of Gatehouse. */
export function recordOutput(socket: Socket, hear: (text: string) => void): void {
  const hearChunk = (chunk: unknown): void => {
    if (typeof chunk === 'string') hear(chunk);
    if (chunk instanceof Uint8Array) hear(Buffer.from(chunk).toString());
  };
  const write = socket.write.bind(socket) as (...sent: unknown[]) => boolean;
  socket.write = (...sent: unknown[]) => {
    hearChunk(sent[0]);
    return write(...sent);
  };
  const end = socket.end.bind(socket) as (...sent: unknown[]) => Socket;
  socket.end = (...sent: unknown[]) => {
    hearChunk(sent[0]);
    return end(...sent);
  };
}
