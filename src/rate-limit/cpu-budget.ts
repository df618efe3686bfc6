/**
 * A share of one core, for work that must not grow with the number of requests. Unused time
 * accumulates for up to five seconds. The last run may overdraw the budget, and later runs are
 * skipped until it is positive again.
 */
export class CpuBudget {
  private remainingMs: number;
  private refilledAt: number;

  constructor(
    private readonly share: number,
    private readonly clock: () => number = () => performance.now(),
    private readonly cpuTime: () => number = threadCpuTime,
  ) {
    this.remainingMs = share * MAX_ACCUMULATED_MS;
    this.refilledAt = clock();
  }

  /** Runs the work and charges its CPU time. Returns undefined if the budget is used up. */
  run<Value>(work: () => Value): Value | undefined {
    const now = this.clock();
    const earned = (now - this.refilledAt) * this.share;
    this.remainingMs = Math.min(this.share * MAX_ACCUMULATED_MS, this.remainingMs + earned);
    this.refilledAt = now;
    if (this.remainingMs <= 0) return undefined;
    const before = this.cpuTime();
    try {
      return work();
    } finally {
      this.remainingMs -= this.cpuTime() - before;
    }
  }
}

const MAX_ACCUMULATED_MS = 5000;

/** CPU time, because on a busy machine wall time passes while this thread waits. */
function threadCpuTime(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
