import { Socket } from 'node:net';

/**
 * Preloaded (`node --import`) into the programs that the development stack starts. Their standard
 * input is a pipe from the stack that nobody writes to: it ends when the stack does, even by
 * `kill -9`, and then so do they. Otherwise they would keep their ports from the next start.
 */
process.stdin.on('end', () => process.exit(1));
process.stdin.on('error', () => process.exit(1));
process.stdin.resume();
// The pipe alone is no reason to stay alive.
if (process.stdin instanceof Socket) process.stdin.unref();
