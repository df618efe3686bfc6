export interface TimedCall {
  send: () => Promise<unknown>;
  /** The number of calls in each round. Slow calls are sent less often. */
  repetitions: number;
}

/** Returns the median of each. Taking turns spreads the other load of the machine over all. */
export async function measureInTurns(calls: TimedCall[], rounds: number): Promise<number[]> {
  const times = calls.map((): number[] => []);
  for (const { send } of calls) await send();
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, { send, repetitions }] of calls.entries()) {
      for (let turn = 0; turn < repetitions; turn += 1) {
        const startedAt = performance.now();
        await send();
        times[index]?.push(performance.now() - startedAt);
      }
    }
  }
  return times.map((each) => percentile(each, 0.5));
}

export function percentile(times: number[], share: number): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length * share)] ?? NaN;
}
