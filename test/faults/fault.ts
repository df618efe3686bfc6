import type { Stage } from './stage.ts';

/**
 * One thing that goes wrong. The runner (`run.ts`) starts the services and a steady load of reads and
 * writes, lets it go wrong, looks, mends it, and looks again at what holds for every fault.
 */
export interface Fault {
  name: string;
  /** Why it cannot be tried on this machine, in one line; undefined where it can. */
  impossible?(): string | undefined;
  /** How long it lasts under load before it is looked at and mended. */
  seconds: number;
  /** What clients may be answered in it (200 and 503 unless said) and after it (200). 0 is a broken connection. */
  answers?: number[];
  answersAfter?: number[];
  /** What writes may be answered in it, where that is something else. */
  writes?: number[];
  /** Starts at least one service: `stage.serve()`. */
  start(stage: Stage): Promise<unknown>;
  inject(stage: Stage): Promise<unknown> | void;
  /** While it lasts, what holds for this one alone: `stage.expect()`. */
  expect?(stage: Stage): Promise<void> | void;
  /** Resolves when it is over. */
  restore(stage: Stage): Promise<unknown> | void;
  /** When all is answered again. */
  afterwards?(stage: Stage): Promise<void> | void;
}
