import { constants } from 'node:os';
import { MetadataError } from '@mikro-orm/core';
import { type Environment, InvalidEnvironmentError } from '../config/environment.js';
import { UnusableDatabaseError, describeQueryError } from '../database/connection.js';

/**
 * Runs a command-line program. For an error that its user can fix, it prints only the message,
 * without a stack trace, and exits with code 1.
 */
export async function runProgram(program: () => Promise<void>): Promise<void> {
  for (const signal of TERMINATION_SIGNALS) process.on(signal, exitOnSignal);
  try {
    requireNode();
    await program();
  } catch (error) {
    process.exitCode = 1;
    const message = explain(error);
    if (message === undefined) throw error;
    process.stderr.write(`${message}\n`);
  }
}

/** An older Node would fail later, with a confusing error, or ignore some features. */
function requireNode(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 24 || (major === 24 && minor >= 9)) return;
  throw new UnsupportedNodeError(`Gatehouse needs Node 24.9 or newer; this is ${process.version}.`);
}

class UnsupportedNodeError extends Error {}

/** As process 1 of a container, a program ignores signals without a listener. */
function exitOnSignal(signal: NodeJS.Signals): void {
  process.exit(128 + constants.signals[signal]);
}

/** For a program that handles the signals itself from now on. */
export function stopExitingOnSignal(): void {
  for (const signal of TERMINATION_SIGNALS) process.off(signal, exitOnSignal);
}

const TERMINATION_SIGNALS = ['SIGTERM', 'SIGINT'] as const;

function explain(error: unknown): string | undefined {
  const isOurs = [
    UnsupportedNodeError,
    UsageError,
    InvalidEnvironmentError,
    UnusableDatabaseError,
    ListenError,
  ].some((kind) => error instanceof kind);
  if (isOurs) return (error as Error).message;
  if (error instanceof MetadataError) {
    return `${error.message}. \`src/extensions.ts\` lists the entities of your own.`;
  }
  return describeQueryError(error);
}

/** The arguments of a program are wrong. The message explains them. */
export class UsageError extends Error {}

/** Gatehouse cannot listen on HOST with PORT or METRICS_PORT. */
export class ListenError extends Error {
  constructor({ HOST, PORT, METRICS_PORT }: Environment, cause: unknown) {
    // Node's error has the port that it is about.
    const { code = 'unknown', port = PORT } = cause as { code?: string; port?: number };
    const name = port === METRICS_PORT ? 'METRICS_PORT' : 'PORT';
    const reason = REASONS[code] ?? code;
    super(`Cannot listen on ${HOST}:${port}: ${reason}. Change HOST or ${name}.`, { cause });
  }
}

const REASONS: Record<string, string> = {
  EADDRINUSE: 'the port is in use',
  EADDRNOTAVAIL: 'this machine has no such address',
  ENOTFOUND: 'this machine has no such address',
  EACCES: 'permission denied',
};
