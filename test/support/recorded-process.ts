/** Preloaded into a Gatehouse process by `app-process.ts`. Writes its responses to descriptor 3. */
import { subscribe } from 'node:diagnostics_channel';
import { writeSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { recordOutput } from './output-recorder.ts';

const FILE = 3;
const write = (line: object) => void writeSync(FILE, `${JSON.stringify(line)}\n`);

subscribe('net.server.socket', (message) => {
  recordOutput((message as { socket: Socket }).socket, (response) => write({ response }));
});
subscribe('http.server.request.start', (message) => {
  const { authorization } = (message as { request: IncomingMessage }).request.headers;
  if (authorization !== undefined) write({ authorization });
});
