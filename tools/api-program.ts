import type { ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { startProgram, stopProgram, waitForExit } from './program.ts';

const API_STOP_GRACE_MS = 15_000;
const COMPILER = resolve('node_modules/typescript/bin/tsc');
const COMPILER_ARGUMENTS = ['--project', 'tsconfig.build.json', '--watch', '--preserveWatchOutput'];

/** The API as a child process. Its output is hidden until `show` is called. */
export class ApiProgram {
  #child: ChildProcess;
  #isVisible = false;
  #hidden: string[] = [];
  #restarts = Promise.resolve();
  #isStopping = false;
  readonly #file: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(file: string, env: NodeJS.ProcessEnv) {
    this.#file = file;
    this.#env = env;
    this.#child = this.#launch();
  }

  /** Resolves when the process that runs now has exited. */
  get ended(): Promise<void> {
    return waitForExit(this.#child);
  }

  /** Prints the output from now on, and the warnings and errors of the start. */
  show(): void {
    this.#isVisible = true;
    for (const line of this.#hidden.splice(0)) if (!isInformation(line)) console.log(line);
  }

  /** Prints everything: the start has failed. */
  showAll(): void {
    this.#isVisible = true;
    for (const line of this.#hidden.splice(0)) console.log(line);
  }

  restart(): Promise<void> {
    this.#restarts = this.#restartAfter(this.#restarts);
    return this.#restarts;
  }

  async #restartAfter(previous: Promise<void>): Promise<void> {
    await previous;
    if (this.#isStopping) return;
    await stopProgram(this.#child, API_STOP_GRACE_MS);
    if (!this.#isStopping) this.#child = this.#launch();
  }

  async stop(hurry?: AbortSignal): Promise<void> {
    this.#isStopping = true;
    await stopProgram(this.#child, API_STOP_GRACE_MS, hurry);
    await this.#restarts;
    await stopProgram(this.#child, API_STOP_GRACE_MS, hurry);
  }

  #launch(): ChildProcess {
    const child = startProgram({ file: this.#file, env: this.#env, output: 'pipe' });
    for (const stream of [child.stdout, child.stderr]) {
      if (!stream) continue;
      createInterface(stream).on('line', (line) => {
        if (this.#isVisible) console.log(line);
        else this.#hidden.push(line);
      });
    }
    return child;
  }
}

/** Both log formats; a line that continues another one is indented. */
function isInformation(line: string): boolean {
  return /^(?:\[[^\]]*\] (?:INFO|DEBUG|TRACE)\b|\{"level":"(?:info|debug|trace)")/.test(line);
}

/** Compiles `src` after each change. Calls `onBuild` after each good build, except the first. */
export function watchSources(onBuild: () => void): ChildProcess {
  const compiler = startProgram({
    file: COMPILER,
    args: COMPILER_ARGUMENTS,
    env: process.env,
    output: 'pipe',
  });
  let isFirst = true;
  if (compiler.stdout) {
    createInterface(compiler.stdout).on('line', (line) => {
      if (/error TS\d+/.test(line)) console.log(line);
      if (!/Found 0 errors\. Watching/.test(line)) return;
      if (!isFirst) onBuild();
      isFirst = false;
    });
  }
  return compiler;
}
