import { write, writeSync } from 'node:fs';

export interface LogStream {
  write(text: string): void;
  flush?(done: () => void): void;
}

export function standardOutput(): LogStream {
  // Access makes Node open these streams. It makes a pipe non-blocking, so a stopped reader does
  // not block the writer. Without a listener, their `error` event would end the process.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  return new LogOutput(1);
}

/**
 * Writes in batches, outside the requests. `pino.destination` does the same. But if the disk is
 * full or the reader has gone, its last flush retries for ever and the process never ends.
 */
class LogOutput implements LogStream {
  private queue: string[] = [];
  private queuedLength = 0;
  /** The rest of the batch that is being written. */
  private current: Buffer = NOTHING;
  private isBusy = false;
  private isReaderGone = false;
  private onDrained: (() => void)[] = [];

  constructor(private readonly descriptor: number) {
    process.on('exit', () => this.writeRest());
  }

  write(text: string): void {
    // The first lines about a failure are more useful than the last ones.
    if (this.isReaderGone || this.queuedLength > MAX_QUEUED_LENGTH) return;
    this.queue.push(text);
    this.queuedLength += text.length;
    if (this.isBusy) return;
    this.isBusy = true;
    // One write costs as much as formatting a hundred lines.
    setTimeout(() => this.send(), BATCH_MS);
  }

  flush = (done: () => void): void => {
    if (!this.isBusy) return done();
    const timeout = setTimeout(done, FLUSH_TIMEOUT_MS);
    this.onDrained.push(() => {
      clearTimeout(timeout);
      done();
    });
  };

  private send(): void {
    if (this.current.length === 0) this.current = this.takeQueue();
    if (this.current.length === 0) {
      this.isBusy = false;
      for (const done of this.onDrained.splice(0)) done();
      return;
    }
    this.isBusy = true;
    write(this.descriptor, this.current, (error, written) => {
      if (error === null) this.current = this.current.subarray(written);
      if (error?.code === 'EPIPE') this.stop();
      // A full pipe or disk may have room again later.
      if (error === null || this.isReaderGone) this.send();
      else setTimeout(() => this.send(), RETRY_DELAY_MS).unref();
    });
  }

  private takeQueue(): Buffer {
    const text = this.queue.join('');
    this.queue = [];
    this.queuedLength = 0;
    return text === '' ? NOTHING : Buffer.from(text);
  }

  private stop(): void {
    this.isReaderGone = true;
    this.current = NOTHING;
    this.takeQueue();
  }

  /** Runs at exit, so it must be synchronous. Writing a batch twice is better than losing it. */
  private writeRest(): void {
    let rest = Buffer.concat([this.current, this.takeQueue()]);
    const deadline = performance.now() + FLUSH_TIMEOUT_MS;
    while (rest.length > 0) {
      try {
        rest = rest.subarray(writeSync(this.descriptor, rest));
      } catch (error) {
        const isFull = (error as NodeJS.ErrnoException).code === 'EAGAIN';
        if (!isFull || performance.now() > deadline) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }
    }
  }
}

const NOTHING: Buffer = Buffer.alloc(0);
const MAX_QUEUED_LENGTH = 4_000_000;
const BATCH_MS = 25;
const RETRY_DELAY_MS = 100;
const FLUSH_TIMEOUT_MS = 500;
