import { setTimeout as sleep } from 'node:timers/promises';
import { startProcess, type AppProcess } from '../support/app-process.ts';
import { type Answer, type Asking, HttpClient } from './http-client.ts';
import { Ledger, LEDGER_ROLES } from './ledger.ts';
import { Load, type Tally } from './load.ts';
import type { System } from './system.ts';

/** What one fault plays on: its services, and the load on them. */
export class Stage {
  readonly system: System;
  /** Full sizes (`--long`), or those that fit into five minutes. */
  readonly long: boolean;
  readonly services: AppProcess[] = [];
  /** All that were ever started: what the ended ones have logged counts, too. */
  private readonly started: AppProcess[] = [];
  /** Those that were meant to end. */
  readonly ended = new Set<AppProcess>();
  readonly findings: string[] = [];
  /** Figures of this fault alone. */
  readonly notes: string[] = [];
  readonly client = new HttpClient();
  /** Where requests go; the services themselves where nothing stands before them. */
  front: string[] | undefined;
  /** How many reads a second, and how long a writer pauses. */
  readsPerSecond = 100;
  writePauseMs = 100;
  load!: Load;
  ledger!: Ledger;
  private readonly closing: (() => unknown)[] = [];

  constructor(system: System, long: boolean) {
    this.system = system;
    this.long = long;
  }

  /** Production's own program, with nothing set that production would not set. */
  async serve(variables: Record<string, string> = {}, port?: number): Promise<AppProcess> {
    const served = await startProcess(
      {
        DATABASE_URL: this.system.url(),
        BETTER_AUTH_URL: this.system.auth.origin,
        ROLES: ['user', 'admin', ...LEDGER_ROLES].join(','),
        ...variables,
      },
      port === undefined ? {} : { port },
    );
    await this.until(async () => (await this.ask('/health/ready', {}, served)).status === 200);
    this.services.push(served);
    this.started.push(served);
    return served;
  }

  startLoad(): void {
    const { system } = this;
    const urls = (): string[] => this.front ?? this.services.map(({ url }) => url);
    this.load = new Load(
      () =>
        urls().flatMap((url) =>
          system.readers.flatMap(({ id, token }) => [
            { url: `${url}/api/v1/auth/me`, token },
            { url: `${url}/api/v1/users/${id}`, token },
          ]),
        ),
      this.readsPerSecond,
    );
    this.ledger = new Ledger({
      subjects: system.subjects,
      admin: () => system.admin.token,
      url: (turn) => urls()[turn % urls().length] ?? '',
      pauseMs: this.writePauseMs,
    });
  }

  /** What was answered since the last look. */
  look(): { reads: Tally; writes: Tally } {
    return { reads: this.load.look(), writes: this.ledger.look() };
  }

  async endLoad(): Promise<void> {
    await Promise.all([this.load.stop(), this.ledger.stop()]);
  }

  /** Who is ended with the stage. */
  onClose(close: () => unknown): void {
    this.closing.push(close);
  }

  async close(): Promise<void> {
    for (const close of this.closing.toReversed()) await close();
    await Promise.all(this.services.map((served) => served.end('SIGKILL')));
    this.client.close();
  }

  /** A finding where it does not hold; the others are looked at all the same. */
  expect(holds: boolean, promise: string): void {
    if (!holds) this.findings.push(promise);
  }

  /** No process has ended by itself, and none has met a fault of its own. */
  expectHealthyServices(): void {
    for (const served of this.started) {
      const { child, output } = served;
      const runs = child.exitCode === null && child.signalCode === null;
      this.expect(runs || this.ended.has(served), `the process stays: ${child.exitCode}`);
      this.expect(output.stderr === '', `nothing is on standard error: ${output.stderr}`);
      for (const fault of FAULTS_IN_LOG) {
        const line = output.stdout.split('\n').find((each) => each.includes(fault));
        this.expect(line === undefined, `the log tells of no fault of ours: ${line}`);
      }
    }
  }

  /** Why something was refused, by the services' own logs: the causes, and how often each. */
  causes(): string {
    const causes = new Map<string, number>();
    for (const { output } of this.started) {
      for (const line of output.stdout
        .split('\n')
        .filter((each) => each.includes('"unavailable"'))) {
        const { cause } = JSON.parse(line) as { cause: { message?: string; type: string } };
        const name = cause.message ?? cause.type;
        causes.set(name, (causes.get(name) ?? 0) + 1);
      }
    }
    return [...causes].map(([cause, times]) => `${cause} × ${times}`).join(', ');
  }

  /** By the services' own clocks, without the way to the client. */
  slowestByLog(): number {
    const times = this.started.flatMap(({ output }) =>
      [...output.stdout.matchAll(/"ms":([\d.]+)/g)].map(([, ms]) => Number(ms)),
    );
    return Math.round(times.reduce((most, ms) => Math.max(most, ms), 0));
  }

  note(figure: string): void {
    this.notes.push(figure);
  }

  /** One request beside the load. */
  ask(path: string, asking: Asking = {}, served = this.services[0]): Promise<Answer> {
    return this.client.ask(`${served?.url}${path}`, asking);
  }

  /** The log of the first service. */
  lines(): Record<string, unknown>[] {
    return this.services[0]?.lines() ?? [];
  }

  /** Resolves with how long it took, or says in vain. */
  async until(holds: () => Promise<boolean> | boolean, seconds = 15): Promise<number> {
    const began = performance.now();
    while (!(await holds())) {
      if (performance.now() - began > seconds * 1000) return Number.POSITIVE_INFINITY;
      await sleep(20);
    }
    return performance.now() - began;
  }
}

const FAULTS_IN_LOG = [
  '"code":"INTERNAL_ERROR"',
  'unhandled promise rejection',
  'uncaught exception',
];
