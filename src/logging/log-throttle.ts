import type { Logger } from 'pino';

/**
 * Limits the log lines that an anonymous client can cause, so that it cannot fill the disk. It
 * counts the suppressed lines.
 */
export class LogThrottle {
  private windowEndsAt = 0;
  private attempted = 0;

  constructor(
    private readonly log: Logger,
    private readonly of: string,
    private readonly maxPerMinute = 600,
  ) {}

  /** Whether one more line may be written. */
  allow(): boolean {
    const now = performance.now();
    if (now >= this.windowEndsAt) {
      const suppressed = this.attempted - this.maxPerMinute;
      if (suppressed > 0) {
        this.log.warn({ event: 'log.suppressed', of: this.of, suppressed }, 'log.suppressed');
      }
      this.windowEndsAt = now + 60_000;
      this.attempted = 0;
    }
    this.attempted += 1;
    return this.attempted <= this.maxPerMinute;
  }
}

/**
 * A limit for each class of lines, so that a flood of one class does not suppress the others. The
 * class names must come from a closed list, never from a request.
 */
export class LogThrottles {
  private readonly throttles = new Map<string, LogThrottle>();

  constructor(
    private readonly log: Logger,
    private readonly of: string,
    private readonly maxPerMinute?: number,
  ) {}

  allow(className: string): boolean {
    let throttle = this.throttles.get(className);
    if (!throttle) {
      throttle = new LogThrottle(this.log, `${this.of} ${className}`, this.maxPerMinute);
      this.throttles.set(className, throttle);
    }
    return throttle.allow();
  }
}
