import type { Logger } from 'pino';

/**
 * Lines that strangers can cause are bounded, and what was left out is counted: a log is a disk that
 * somebody else could fill.
 */
export class LineBudget {
  private endsAt = 0;
  private wanted = 0;

  constructor(
    private readonly log: Logger,
    private readonly of: string,
    private readonly mostAMinute = 600,
  ) {}

  /** Whether one more line may be written. */
  spend(): boolean {
    const now = performance.now();
    if (now >= this.endsAt) {
      const leftOut = this.wanted - this.mostAMinute;
      if (leftOut > 0) {
        this.log.warn({ event: 'log.lines_left_out', of: this.of, leftOut }, 'log.lines_left_out');
      }
      this.endsAt = now + 60_000;
      this.wanted = 0;
    }
    this.wanted += 1;
    return this.wanted <= this.mostAMinute;
  }
}
