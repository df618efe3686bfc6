import { setTimeout as sleep } from 'node:timers/promises';
import { startProcess, type AppProcess } from '../support/app-process.ts';
import { type Answer, type RequestOptions, HttpClient } from './http-client.ts';
import { Ledger, LEDGER_ROLES } from './ledger.ts';
import { Load, type Tally } from './load.ts';
import type { System } from './system.ts';

/** The services of one fault and the load on them. */
export class FaultContext {
  readonly system: System;
  /** Full sizes (`--long`), or those that fit into five minutes. */
  readonly long: boolean;
  readonly services: AppProcess[] = [];
  /** All started services, because the logs of ended ones count, too. */
  private readonly started: AppProcess[] = [];
  /** Services that the fault ended on purpose. */
  readonly ended = new Set<AppProcess>();
  readonly findings: string[] = [];
  /** Figures of this fault alone. */
  readonly notes: string[] = [];
  readonly client = new HttpClient();
  /** The load balancers that receive requests, or undefined for direct requests. */
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

  /** Starts the production build with a production configuration. */
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
    await this.until(async () => (await this.send('/health/ready', {}, served)).status === 200);
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

  /** Returns the results since the last call. */
  takeTallies(): { reads: Tally; writes: Tally } {
    return { reads: this.load.takeTally(), writes: this.ledger.takeTally() };
  }

  async endLoad(): Promise<void> {
    await Promise.all([this.load.stop(), this.ledger.stop()]);
  }

  /** Registers a function that runs when the context closes. */
  onClose(close: () => unknown): void {
    this.closing.push(close);
  }

  async close(): Promise<void> {
    for (const close of this.closing.toReversed()) await close();
    await Promise.all(this.services.map((served) => served.end('SIGKILL')));
    this.client.close();
  }

  /** Adds a finding if the promise does not hold, and continues. */
  expect(holds: boolean, promise: string): void {
    if (!holds) this.findings.push(promise);
  }

  /** Expects that no process exited unexpectedly or logged an internal error. */
  expectHealthyServices(): void {
    for (const served of this.started) {
      const { child, output } = served;
      const runs = child.exitCode === null && child.signalCode === null;
      this.expect(runs || this.ended.has(served), `the process stays: ${child.exitCode}`);
      this.expect(output.stderr === '', `nothing is on standard error: ${output.stderr}`);
      for (const fault of FAULTS_IN_LOG) {
        const line = output.stdout.split('\n').find((entry) => entry.includes(fault));
        this.expect(line === undefined, `the log has no internal error: ${line}`);
      }
    }
  }

  /** The causes of 503 responses in the logs, with their numbers. */
  causes(): string {
    const causes = new Map<string, number>();
    for (const { output } of this.started) {
      for (const line of output.stdout
        .split('\n')
        .filter((entry) => entry.includes('"unavailable"'))) {
        const { cause } = JSON.parse(line) as { cause: { message?: string; type: string } };
        const name = cause.message ?? cause.type;
        causes.set(name, (causes.get(name) ?? 0) + 1);
      }
    }
    return [...causes].map(([cause, times]) => `${cause} × ${times}`).join(', ');
  }

  /** The slowest response in the logs, without the network time. */
  slowestByLog(): number {
    const times = this.started.flatMap(({ output }) =>
      [...output.stdout.matchAll(/"ms":([\d.]+)/g)].map(([, ms]) => Number(ms)),
    );
    return Math.round(times.reduce((most, ms) => Math.max(most, ms), 0));
  }

  note(figure: string): void {
    this.notes.push(figure);
  }

  /** Sends one request in addition to the load. */
  send(path: string, asking: RequestOptions = {}, served = this.services[0]): Promise<Answer> {
    return this.client.send(`${served?.url}${path}`, asking);
  }

  /** The log of the first service. */
  lines(): Record<string, unknown>[] {
    return this.services[0]?.lines() ?? [];
  }

  /** Resolves with the time it took, or with infinity after the timeout. */
  async until(holds: () => Promise<boolean> | boolean, seconds = 15): Promise<number> {
    const startedAt = performance.now();
    while (!(await holds())) {
      if (performance.now() - startedAt > seconds * 1000) return Number.POSITIVE_INFINITY;
      await sleep(20);
    }
    return performance.now() - startedAt;
  }
}

const FAULTS_IN_LOG = [
  '"code":"INTERNAL_ERROR"',
  'unhandled promise rejection',
  'uncaught exception',
];
