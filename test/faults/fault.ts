import type { FaultContext } from './fault-context.ts';

/**
 * One fault. The runner (`run.ts`) starts the services and a steady load of reads and writes. It
 * injects the fault, checks the responses, ends the fault and checks them again.
 */
export interface Fault {
  name: string;
  /** One line why this machine cannot run it, or undefined. */
  impossible?(): string | undefined;
  /** How long it lasts under load before it is checked and ended. */
  seconds: number;
  /** Allowed statuses during it (default 200, 503) and after it (200). 0 is a broken connection. */
  answers?: number[];
  answersAfter?: number[];
  /** Allowed statuses of writes during it, if they differ. */
  writes?: number[];
  /** Starts at least one service: `context.serve()`. */
  start(context: FaultContext): Promise<unknown>;
  inject(context: FaultContext): Promise<unknown> | void;
  /** Checks this fault while it lasts: `context.expect()`. */
  expect?(context: FaultContext): Promise<void> | void;
  /** Resolves when it is over. */
  restore(context: FaultContext): Promise<unknown> | void;
  /** Runs when the service has recovered. */
  afterwards?(context: FaultContext): Promise<void> | void;
}
