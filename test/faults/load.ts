import { HttpClient } from './http-client.ts';

/** What came of the requests of one phase. */
export interface Tally {
  requests: number;
  statuses: Map<number, number>;
  slowestMs: number;
  /** 503 that do not say when to come back. */
  bare: number;
}

export function newTally(): Tally {
  return { requests: 0, statuses: new Map(), slowestMs: 0, bare: 0 };
}

export function count(
  tally: Tally,
  { status, headers, ms }: { status: number; headers: NodeJS.Dict<string | string[]>; ms: number },
): void {
  tally.requests += 1;
  tally.statuses.set(status, (tally.statuses.get(status) ?? 0) + 1);
  tally.slowestMs = Math.max(tally.slowestMs, ms);
  if (status === 503 && headers['retry-after'] === undefined) tally.bare += 1;
}

export function sumOf(into: Tally, ...tallies: Tally[]): Tally {
  for (const { requests, statuses, slowestMs, bare } of tallies) {
    into.requests += requests;
    into.bare += bare;
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
 * A bounded rate of reads, sent when they are due and not when the one before is answered: a service
 * that is slow gets as many as one that is quick.
 */
export class Load {
  /** Since the last look. */
  tally = newTally();
  private readonly client = new HttpClient();
  private readonly underWay = new Set<Promise<void>>();
  private readonly timer: NodeJS.Timeout;
  private readonly began = performance.now();
  private readonly targets: () => Target[];
  private readonly perSecond: number;
  private sent = 0;
  private successes: number[] = [];

  constructor(targets: () => Target[], perSecond: number) {
    this.targets = targets;
    this.perSecond = perSecond;
    this.timer = setInterval(() => this.sendDue(), 5);
  }

  /** What came of it since the last look, of the requests that were answered by now. */
  look(): Tally {
    const { tally } = this;
    this.tally = newTally();
    return tally;
  }

  /** How long after that moment the first request was answered with 200. */
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
    await Promise.all(this.underWay);
    this.client.close();
  }

  private sendDue(): void {
    // What could not be sent in time, because this process was busy, is left out and not made up for.
    const due = Math.floor(((performance.now() - this.began) / 1000) * this.perSecond);
    const behind = Math.min(due - this.sent, MOST_AT_ONCE);
    this.sent = due;
    for (let each = 0; each < behind; each += 1) this.send(due - each);
  }

  private send(turn: number): void {
    const targets = this.targets();
    const target = targets[turn % targets.length];
    if (!target) return;
    const asking = this.ask(target).finally(() => this.underWay.delete(asking));
    this.underWay.add(asking);
  }

  private async ask({ url, token }: Target): Promise<void> {
    const answer = await this.client.ask(url, { token });
    count(this.tally, answer);
    if (answer.status !== 200) return;
    this.successes.push(performance.now());
    // Only the latest are ever asked for.
    if (this.successes.length > 5000) this.successes = this.successes.slice(-1000);
  }
}

const MOST_AT_ONCE = 20;
