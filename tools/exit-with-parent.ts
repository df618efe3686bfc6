import { Socket } from 'node:net';

/**
 * Preloaded (`node --import`) into the programs that the development stack starts. Their standard
 * input is a pipe from the stack. The pipe closes when the stack ends, even by `kill -9`, and then
 * the programs exit. Otherwise they would occupy their ports at the next start.
 */
process.stdin.on('end', () => process.exit(1));
process.stdin.on('error', () => process.exit(1));
process.stdin.resume();
// The pipe must not keep the process alive.
if (process.stdin instanceof Socket) process.stdin.unref();
