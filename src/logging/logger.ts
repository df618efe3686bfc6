import { createRequire } from 'node:module';
import pino, { type Logger } from 'pino';
import type { Environment } from '../config/environment.js';
import { activeTraceId } from '../tracing/tracing.js';
import { describeError } from './describe-error.js';
import { type LogStream, standardOutput } from './log-stream.js';

/** `@Inject(LOG)`: the pino logger of the process, for events with fields of their own. */
export const LOG = Symbol('LOG');

/** pino's logger, and a faster method for the line of each request. */
export interface ProcessLogger extends Logger {
  logRequest(level: 'debug' | 'info', fields: object): void;
}

/**
 * The log of the process, on standard output. If the output fails (closed pipe, full disk, stopped
 * reader), lines are lost but the process runs on.
 */
export function createLogger(
  environment: Environment,
  destination: LogStream = standardOutput(),
): ProcessLogger {
  const pretty = environment.logFormat === 'pretty' ? loadPrettifier() : undefined;
  const output = pretty ? prettified(destination, pretty) : destination;
  const log = pino(
    {
      level: environment.LOG_LEVEL,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRETS, censor: '[redacted]' },
      serializers: { err: describeError },
      ...(activeTraceId && { mixin: () => ({ trace_id: activeTraceId?.() }) }),
      hooks: {
        logMethod(args, method) {
          method.apply(this, withMessage(args) as typeof args);
        },
      },
    },
    output,
  );
  if (environment.logFormat === 'pretty' && !pretty) {
    log.warn('LOG_FORMAT=pretty needs pino-pretty, which is not installed: the log is JSON');
  }
  return Object.assign(log, { logRequest: requestLogger(log, output) });
}

/**
 * Writes the same line as pino would. Every request has one. In a busy process, pino's own path
 * costs a tenth of a request: it runs much code that the CPU caches no longer hold.
 */
function requestLogger(log: Logger, output: LogStream): ProcessLogger['logRequest'] {
  return (level, fields) => {
    if (!log.isLevelEnabled(level)) return;
    const rest = JSON.stringify(fields).slice(1, -1);
    output.write(
      `{"level":"${level}","time":"${new Date().toISOString()}",${rest},"msg":"request"}\n`,
    );
  };
}

/** Resolves when every earlier line is written or has failed. */
export function flush(log: Logger): Promise<void> {
  return new Promise((resolve) => log.flush(() => resolve()));
}

/** No code logs these fields. The list protects against a future mistake. */
const SECRETS = ['authorization', 'cookie', 'token', 'password', 'secret', 'req.headers'];

/** pino would copy the error's message into `msg`, although the serializer omits it. */
function withMessage(args: unknown[]): unknown[] {
  const [first, message] = args;
  if (message !== undefined || typeof first !== 'object' || first === null) return args;
  const error = first instanceof Error ? first : Reflect.get(first, 'err');
  if (error === undefined) return args;
  const { message: safeMessage, type } = describeError(error);
  return [first instanceof Error ? { err: first } : first, safeMessage ?? type];
}

function prettified(output: LogStream, pretty: (line: string) => string): LogStream {
  return {
    write: (line) => output.write(pretty(line)),
    flush: (done) => (output.flush ? output.flush(done) : done()),
  };
}

/** Runs in this thread, so that no line is lost. Undefined if pino-pretty is not installed. */
function loadPrettifier(): ((line: string) => string) | undefined {
  try {
    const require = createRequire(import.meta.url);
    const { prettyFactory } = require('pino-pretty') as typeof import('pino-pretty');
    return prettyFactory({ singleLine: true, colorize: process.stdout.isTTY });
  } catch {
    return undefined;
  }
}
