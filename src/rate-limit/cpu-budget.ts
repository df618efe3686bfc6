/**
 * A share of one core, for work that must not grow with the number of requests. Time that is not used is
 * kept for up to five seconds. The last run may take more than there is, and the next ones wait for it.
 */
export class CpuBudget {
  private remainingMs: number;
  private refilledAt: number;

  constructor(
    private readonly share: number,
    private readonly clock: () => number = () => performance.now(),
    private readonly cpuTime: () => number = threadCpuTime,
  ) {
    this.remainingMs = share * MAX_KEPT_MS;
    this.refilledAt = clock();
  }

  /** The result of the work, which is charged for the CPU time it takes; undefined when none is left. */
  run<Value>(work: () => Value): Value | undefined {
    const now = this.clock();
    const earned = (now - this.refilledAt) * this.share;
    this.remainingMs = Math.min(this.share * MAX_KEPT_MS, this.remainingMs + earned);
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

const MAX_KEPT_MS = 5000;

/** Not the time of the clock, which a busy machine lets pass without work being done. */
function threadCpuTime(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
