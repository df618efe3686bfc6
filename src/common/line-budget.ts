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

/**
 * A budget for each class of lines, so that a flood of one class does not hide the others. The names of
 * the classes must come from a closed list, and never from a request.
 */
export class LineBudgets {
  private readonly budgets = new Map<string, LineBudget>();

  constructor(
    private readonly log: Logger,
    private readonly of: string,
    private readonly mostAMinute?: number,
  ) {}

  spend(className: string): boolean {
    let budget = this.budgets.get(className);
    if (!budget) {
      budget = new LineBudget(this.log, `${this.of} ${className}`, this.mostAMinute);
      this.budgets.set(className, budget);
    }
    return budget.spend();
  }
}
