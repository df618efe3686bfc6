import { HttpClient } from './http-client.ts';

/** The results of the requests of one phase. */
export interface Tally {
  requests: number;
  statuses: Map<number, number>;
  slowestMs: number;
  /** The number of 503 responses without Retry-After. */
  withoutRetryAfter: number;
}

export function newTally(): Tally {
  return { requests: 0, statuses: new Map(), slowestMs: 0, withoutRetryAfter: 0 };
}

export function count(
  tally: Tally,
  { status, headers, ms }: { status: number; headers: NodeJS.Dict<string | string[]>; ms: number },
): void {
  tally.requests += 1;
  tally.statuses.set(status, (tally.statuses.get(status) ?? 0) + 1);
  tally.slowestMs = Math.max(tally.slowestMs, ms);
  if (status === 503 && headers['retry-after'] === undefined) tally.withoutRetryAfter += 1;
}

export function addTallies(into: Tally, ...tallies: Tally[]): Tally {
  for (const { requests, statuses, slowestMs, withoutRetryAfter } of tallies) {
    into.requests += requests;
    into.withoutRetryAfter += withoutRetryAfter;
    into.slowestMs = Math.max(into.slowestMs, slowestMs);
    for (const [status, times] of statuses) {
      into.statuses.set(status, (into.statuses.get(status) ?? 0) + times);
    }
  }
  return into;
}

export function only({ statuses }: Tally, allowed: number[]): boolean {
  return [...statuses.keys()].every((status) => allowed.includes(status));
}

/** `200 × 412, 503 × 97` */
export function statusesOf({ statuses }: Tally): string {
  return [...statuses]
    .toSorted(([one], [other]) => one - other)
    .map(([status, times]) => `${status || 'broken'} × ${times}`)
    .join(', ');
}

export interface Target {
  url: string;
  token: string;
}

/**
 * Sends reads at a fixed rate, independent of responses. A slow service gets as many requests as
 * a fast one.
 */
export class Load {
  /** The results since the last call of `takeTally`. */
  tally = newTally();
  private readonly client = new HttpClient();
  private readonly pending = new Set<Promise<void>>();
  private readonly timer: NodeJS.Timeout;
  private readonly startedAt = performance.now();
  private readonly targets: () => Target[];
  private readonly perSecond: number;
  private sent = 0;
  private successes: number[] = [];

  constructor(targets: () => Target[], perSecond: number) {
    this.targets = targets;
    this.perSecond = perSecond;
    this.timer = setInterval(() => this.sendDue(), 5);
  }

  /** Returns the results since the last call, and starts a new tally. */
  takeTally(): Tally {
    const { tally } = this;
    this.tally = newTally();
    return tally;
  }

  /** The time from that moment until the first response with status 200. */
  async firstSuccessAfter(moment: number, withinMs: number): Promise<number> {
    while (performance.now() < moment + withinMs) {
      const first = this.successes.find((at) => at >= moment);
      if (first !== undefined) return first - moment;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return Number.POSITIVE_INFINITY;
  }

  async stop(): Promise<void> {
    clearInterval(this.timer);
    await Promise.all(this.pending);
    this.client.close();
  }

  private sendDue(): void {
    // Skips requests that this process was too busy to send in time.
    const due = Math.floor(((performance.now() - this.startedAt) / 1000) * this.perSecond);
    const behind = Math.min(due - this.sent, MAX_BURST);
    this.sent = due;
    for (let index = 0; index < behind; index += 1) this.startRequest(due - index);
  }

  private startRequest(turn: number): void {
    const targets = this.targets();
    const target = targets[turn % targets.length];
    if (!target) return;
    const asking = this.send(target).finally(() => this.pending.delete(asking));
    this.pending.add(asking);
  }

  private async send({ url, token }: Target): Promise<void> {
    const answer = await this.client.send(url, { token });
    count(this.tally, answer);
    if (answer.status !== 200) return;
    this.successes.push(performance.now());
    // Only the latest are needed.
    if (this.successes.length > 5000) this.successes = this.successes.slice(-1000);
  }
}

const MAX_BURST = 20;
