import type { Logger } from 'pino';

/**
 * Lines that strangers can cause are bounded, and what was left out is counted: a log is a disk that
 * somebody else could fill.
 */
export class LogThrottle {
  private endsAt = 0;
  private attempted = 0;

  constructor(
    private readonly log: Logger,
    private readonly of: string,
    private readonly maxPerMinute = 600,
  ) {}

  /** Whether one more line may be written. */
  allow(): boolean {
    const now = performance.now();
    if (now >= this.endsAt) {
      const leftOut = this.attempted - this.maxPerMinute;
      if (leftOut > 0) {
        this.log.warn({ event: 'log.lines_left_out', of: this.of, leftOut }, 'log.lines_left_out');
      }
      this.endsAt = now + 60_000;
      this.attempted = 0;
    }
    this.attempted += 1;
    return this.attempted <= this.maxPerMinute;
  }
}

/**
 * A budget for each class of lines, so that a flood of one class does not hide the others. The names of
 * the classes must come from a closed list, and never from a request.
 */
export class LogThrottles {
  private readonly throttles = new Map<string, LogThrottle>();

  constructor(
    private readonly log: Logger,
    private readonly of: string,
    private readonly mostAMinute?: number,
  ) {}

  allow(className: string): boolean {
    let budget = this.throttles.get(className);
    if (!budget) {
      budget = new LogThrottle(this.log, `${this.of} ${className}`, this.mostAMinute);
      this.throttles.set(className, budget);
    }
    return budget.allow();
  }
}
