import { write, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { ValidationError } from '@mikro-orm/core';
import pino, { type Logger } from 'pino';
import type { Environment } from '../config/environment.js';

/** `@Inject(LOG)`: the pino logger of the process, for events with fields of their own. */
export const LOG = Symbol('LOG');

/**
 * The process's log, on standard output. A log that cannot be written (closed pipe, full disk, a reader
 * that has stopped) loses lines, never the process.
 */
export function createLogger(
  environment: Environment,
  output: LogStream = standardOutput(),
): Logger {
  const pretty = environment.logFormat === 'pretty' ? loadPrettifier() : undefined;
  const log = pino(
    {
      level: environment.LOG_LEVEL,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRETS, censor: '[redacted]' },
      serializers: { err: describeError },
      hooks: {
        logMethod(args, method) {
          method.apply(this, withMessage(args) as typeof args);
        },
      },
    },
    pretty ? prettified(output, pretty) : output,
  );
  if (environment.logFormat === 'pretty' && !pretty) {
    log.warn('LOG_FORMAT=pretty needs pino-pretty, which is not installed here: this is JSON');
  }
  return log;
}

/**
 * One line of known members, as pino would write it. Every request has one, and in a busy process pino's
 * own way costs a tenth of the request: much code, which the rest has driven out of the caches.
 */
export function logRequest(
  log: Logger,
  level: 'debug' | 'info',
  message: string,
  members: object,
): void {
  if (!log.isLevelEnabled(level)) return;
  const rest = JSON.stringify(members).slice(1, -1);
  const output = Reflect.get(log, pino.symbols.streamSym) as LogStream;
  output.write(
    `{"level":"${level}","time":"${new Date().toISOString()}",${rest},"msg":"${message}"}\n`,
  );
}

/** Resolves when everything logged so far is written, or cannot be. */
export function flush(log: Logger): Promise<void> {
  return new Promise((resolve) => log.flush(() => resolve()));
}

export interface LogStream {
  write(text: string): void;
  flush?(done: () => void): void;
}

/** Nothing of the kind is logged on purpose; this is for the line that somebody adds one day. */
const SECRETS = ['authorization', 'cookie', 'token', 'password', 'secret', 'req.headers'];

/** pino would take the message of the error itself, past the serializer that leaves it out. */
function withMessage(args: unknown[]): unknown[] {
  const [first, message] = args;
  if (message !== undefined || typeof first !== 'object' || first === null) return args;
  const error = first instanceof Error ? first : Reflect.get(first, 'err');
  if (error === undefined) return args;
  const { message: said, type } = describeError(error);
  return [first instanceof Error ? { err: first } : first, said ?? type];
}

// ── Errors ──────────────────────────────────────────────────────────────────────────────────────

interface DescribedError {
  type: string;
  code?: unknown;
  message?: string;
  /** Names out of the schema, which say more than the code and quote no row. */
  constraint?: unknown;
  table?: unknown;
  column?: unknown;
  stack?: string;
  cause?: DescribedError;
  errors?: DescribedError[];
}

/** What went wrong and where, without the values that it went wrong with. */
export function describeError(error: unknown, depth = 0): DescribedError {
  if (!isError(error)) return { type: typeof error };
  const { cause, errors } = error;
  const deeper = depth < MAX_CAUSE_DEPTH;
  return present({
    type: error.name,
    code: error.code,
    message: quotesValues(error) ? undefined : error.message,
    constraint: error.constraint,
    table: error.table,
    column: error.column,
    stack: framesOf(error),
    cause: deeper && isError(cause) ? describeError(cause, depth + 1) : undefined,
    errors:
      deeper && Array.isArray(errors)
        ? errors.slice(0, MAX_ERRORS).map((each) => describeError(each, depth + 1))
        : undefined,
  });
}

const MAX_CAUSE_DEPTH = 3;
const MAX_ERRORS = 5;

type ErrorLike = Error &
  Partial<Record<'code' | 'errors' | 'constraint' | 'table' | 'column', unknown>>;

// Not `instanceof Error`: under Jest, Node's own errors come from another realm.
function isError(value: unknown): value is ErrorLike {
  return typeof value === 'object' && value !== null && 'message' in value && 'name' in value;
}

function quotesValues(error: ErrorLike): boolean {
  // JSON.parse quotes what it could not read.
  if (error.name === 'SyntaxError') return true;
  // MikroORM's "User not found ({ email: … })".
  if (error instanceof ValidationError) return true;
  return SQLSTATE.test(String(error.code)) && !ABOUT_THE_SERVER.test(String(error.code));
}

// Node's own codes (EPIPE) can be of five capital letters, too.
const SQLSTATE = /^(?=.*\d)[0-9A-Z]{5}$/;

/** Classes of SQLSTATE whose messages speak of connections, limits and locks, never of rows. */
const ABOUT_THE_SERVER = /^(08|25|28|3D|40|53|55|57|58)/;

/** Without the message, which stands above the frames and may look like one. */
function framesOf({ stack, message }: Error): string | undefined {
  return stack
    ?.replaceAll(message, '')
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
    .join('\n');
}

function present(described: { [Key in keyof DescribedError]: DescribedError[Key] | undefined }) {
  return Object.fromEntries(
    Object.entries(described).filter(([, value]) => value !== undefined),
  ) as unknown as DescribedError;
}

// ── Standard output ─────────────────────────────────────────────────────────────────────────────

function standardOutput(): LogStream {
  // Looking at them makes Node open them: without waiting, where they are pipes, so that a reader that
  // has stopped does not stop the writer. Without a listener their `error` event ends the process.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  return new LogOutput(1);
}

/**
 * Written behind the back of the requests, a batch at a time. `pino.destination` does the same, but on
 * a full disk, or when the reader has gone, its last flush tries for ever and the process never ends.
 */
class LogOutput implements LogStream {
  private waiting: string[] = [];
  private waitingLength = 0;
  /** What is being written, or what is left of it. */
  private current: Buffer = NOTHING;
  private busy = false;
  private readerGone = false;
  private drained: (() => void)[] = [];

  constructor(private readonly descriptor: number) {
    process.on('exit', () => this.writeRest());
  }

  write(text: string): void {
    // The first lines of a trouble are worth more than the last.
    if (this.readerGone || this.waitingLength > MAX_BUFFERED) return;
    this.waiting.push(text);
    this.waitingLength += text.length;
    if (this.busy) return;
    this.busy = true;
    // A write costs as much as making a hundred lines.
    setTimeout(() => this.send(), BATCH_MS);
  }

  flush = (done: () => void): void => {
    if (!this.busy) return done();
    const late = setTimeout(done, FLUSH_MS);
    this.drained.push(() => {
      clearTimeout(late);
      done();
    });
  };

  private send(): void {
    if (this.current.length === 0) this.current = this.takeWaiting();
    if (this.current.length === 0) {
      this.busy = false;
      for (const done of this.drained.splice(0)) done();
      return;
    }
    this.busy = true;
    write(this.descriptor, this.current, (error, written) => {
      if (error === null) this.current = this.current.subarray(written);
      if (error?.code === 'EPIPE') this.stop();
      // A full pipe or a full disk may have room again.
      if (error === null || this.readerGone) this.send();
      else setTimeout(() => this.send(), RETRY_MS).unref();
    });
  }

  private takeWaiting(): Buffer {
    const text = this.waiting.join('');
    this.waiting = [];
    this.waitingLength = 0;
    return text === '' ? NOTHING : Buffer.from(text);
  }

  private stop(): void {
    this.readerGone = true;
    this.current = NOTHING;
    this.takeWaiting();
  }

  /** The process ends: nothing can be waited for but the clock. Rather twice than never. */
  private writeRest(): void {
    let rest = Buffer.concat([this.current, this.takeWaiting()]);
    const deadline = performance.now() + FLUSH_MS;
    while (rest.length > 0) {
      try {
        rest = rest.subarray(writeSync(this.descriptor, rest));
      } catch (error) {
        const full = (error as NodeJS.ErrnoException).code === 'EAGAIN';
        if (!full || performance.now() > deadline) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }
    }
  }
}

const NOTHING: Buffer = Buffer.alloc(0);
const MAX_BUFFERED = 4_000_000;
const BATCH_MS = 25;
const RETRY_MS = 100;
const FLUSH_MS = 500;

function prettified(output: LogStream, pretty: (line: string) => string): LogStream {
  return {
    write: (line) => output.write(pretty(line)),
    flush: (done) => (output.flush ? output.flush(done) : done()),
  };
}

/** For people, where the development dependency is installed. In this thread: a line is never lost. */
function loadPrettifier(): ((line: string) => string) | undefined {
  try {
    const require = createRequire(import.meta.url);
    const { prettyFactory } = require('pino-pretty') as typeof import('pino-pretty');
    return prettyFactory({ singleLine: true, colorize: process.stdout.isTTY });
  } catch {
    return undefined;
  }
}
