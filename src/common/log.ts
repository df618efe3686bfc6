import pino, { type Logger } from 'pino';
import type { Environment } from '../config/environment.js';

/**
 * The process's log, on standard output. A log that cannot be written (closed pipe, full disk) loses
 * lines, never the process.
 */
export function createLog(environment: Environment): Logger {
  const options: pino.LoggerOptions = {
    level: environment.LOG_LEVEL,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: SECRETS, censor: '[redacted]' },
    serializers: { err: errorWithoutQuery },
  };
  survive(process.stdout);
  survive(process.stderr);
  if (environment.logFormat === 'pretty') {
    return pino({
      ...options,
      transport: { target: 'pino-pretty', options: { singleLine: true } },
    });
  }
  const destination = pino.destination({ dest: 1, sync: false, maxLength: 4_000_000 });
  survive(destination);
  return pino(options, destination);
}

/** Without a listener, a stream's `error` event ends the process. */
function survive(stream: { on(event: 'error', listener: () => void): unknown }): void {
  stream.on('error', () => undefined);
}

/** Nothing of the kind is logged on purpose; this is for the line that somebody adds one day. */
const SECRETS = ['authorization', 'cookie', 'token', 'password', 'secret', 'req.headers'];

/** MikroORM's and PostgreSQL's errors quote the statement and its values in the message and members. */
function errorWithoutQuery(error: Error & { code?: unknown }) {
  return {
    type: error.name,
    code: error.code,
    message:
      typeof error.code === 'string' && /^[0-9A-Z]{5}$/.test(error.code)
        ? undefined
        : error.message,
    stack: error.stack
      ?.split('\n')
      .filter((line) => /^\s+at /.test(line))
      .join('\n'),
  };
}
