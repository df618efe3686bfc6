import { write, writeSync } from 'node:fs';

export interface LogStream {
  write(text: string): void;
  flush?(done: () => void): void;
}

export function standardOutput(): LogStream {
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
