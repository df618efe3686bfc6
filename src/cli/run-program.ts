import { constants } from 'node:os';
import { InvalidEnvironmentError } from '../config/environment.js';
import { UnusableDatabaseError, describeQueryError } from '../database/connection.js';

/**
 * Runs a program of ours and gives a fault that its user can mend the form it deserves: the sentence,
 * no stack trace, exit code 1.
 */
export async function runProgram(program: () => Promise<void>): Promise<void> {
  for (const signal of ENDINGS) process.on(signal, exitOnSignal);
  try {
    requireNode();
    await program();
  } catch (error) {
    process.exitCode = 1;
    const sentence = explain(error);
    if (sentence === undefined) throw error;
    process.stderr.write(`${sentence}\n`);
  }
}

/** On an older one some of this would fail late and oddly, and some would do nothing at all. */
function requireNode(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 24 || (major === 24 && minor >= 9)) return;
  throw new UnsupportedNodeError(`Gatehouse needs Node 24.9 or newer; this is ${process.version}.`);
}

class UnsupportedNodeError extends Error {}

/** As process 1 of a container a program ignores the signals that it has no listener for. */
function exitOnSignal(signal: NodeJS.Signals): void {
  process.exit(128 + constants.signals[signal]);
}

/** For a program that has come far enough to end in order. */
export function stopExitingOnSignal(): void {
  for (const signal of ENDINGS) process.off(signal, exitOnSignal);
}

const ENDINGS = ['SIGTERM', 'SIGINT'] as const;

function explain(error: unknown): string | undefined {
  const isOurs = [
    UnsupportedNodeError,
    InvalidEnvironmentError,
    UnusableDatabaseError,
    ListenError,
  ].some((kind) => error instanceof kind);
  if (isOurs) return (error as Error).message;
  return describeQueryError(error);
}

/** The address that the environment names cannot be listened on. */
export class ListenError extends Error {
  constructor(host: string, port: number, cause: unknown) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unknown';
    const reason = REASONS[code] ?? code;
    super(`Cannot listen on ${host}:${port}: ${reason}. HOST and PORT choose another.`, { cause });
  }
}

const REASONS: Record<string, string> = {
  EADDRINUSE: 'the port is in use',
  EADDRNOTAVAIL: 'this machine has no such address',
  ENOTFOUND: 'this machine has no such address',
  EACCES: 'this user may not',
};
