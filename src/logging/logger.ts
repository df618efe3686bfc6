import { createRequire } from 'node:module';
import pino, { type Logger } from 'pino';
import type { Environment } from '../config/environment.js';
import { describeError } from './describe-error.js';
import { type LogStream, standardOutput } from './log-stream.js';

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
