import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import type { ReadyLine, ServerOptions } from './better-auth-server.ts';
import { bypassPooler } from './bypass-pooler.ts';
import { DevStackError } from './errors.ts';
import { waitForExit, stopProgram, startProgram } from './program.ts';

export type { Algorithm, ServerOptions } from './better-auth-server.ts';

const program = fileURLToPath(new URL('./better-auth-server.ts', import.meta.url));
const READY_TIMEOUT_MS = 30_000;
const STOP_GRACE_MS = 3_000;
const ANSWER_TIMEOUT_MS = 10_000;

export interface BetterAuthOptions extends ServerOptions {
  /** Receives each line that the server writes after its start. */
  output?: (line: string) => void;
  /** `production` for measurements; Better-Auth leaves checks out under `test`. */
  nodeEnv?: 'development' | 'production';
}

export interface BetterAuthUser {
  id: string;
  email: string;
  emailVerified: boolean;
  name: string;
  image?: string | null;
  role?: string | null;
  banned?: boolean | null;
  banReason?: string | null;
  banExpires?: string | null;
  createdAt: string;
  updatedAt: string;
}

export interface SignedIn {
  user: BetterAuthUser;
  /** Better-Auth's own credential: `Authorization: Bearer …` to Better-Auth, never to the API. */
  sessionToken: string;
}

/** An answer of Better-Auth that was not a success. */
export class BetterAuthError extends DevStackError {
  override name = 'BetterAuthRefusal';
  readonly status: number;
  readonly code: string | undefined;

  constructor(path: string, status: number, body: string) {
    super(`Better-Auth answered ${status} to ${path}: ${body || 'nothing'}`);
    this.status = status;
    this.code = /"code":"([A-Z_]+)"/.exec(body)?.[1];
  }
}

/** Starts a real Better-Auth server in a process of its own, on 127.0.0.1. */
export async function startBetterAuth(options: BetterAuthOptions): Promise<BetterAuth> {
  return new BetterAuth(options, await launch(options));
}

/** A running Better-Auth server, and what a client says to it, by real HTTP. */
export class BetterAuth {
  /** The issuer of its tokens. */
  readonly origin: string;
  readonly port: number;
  readonly #options: BetterAuthOptions;
  #running: Running;

  constructor(options: BetterAuthOptions, running: Running) {
    this.#options = { ...options, port: running.port };
    this.#running = running;
    this.origin = running.origin;
    this.port = running.port;
  }

  /** Where it listens: the same as `origin`, unless it was given a public one. */
  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#running.pid;
  }

  /** Resolves when the process that runs now has ended, whatever ended it. */
  get ended(): Promise<void> {
    return waitForExit(this.#running.child);
  }

  stop(): Promise<void> {
    return stopProgram(this.#running.child, STOP_GRACE_MS);
  }

  /** Ends it at once, as a crash would. */
  async kill(): Promise<void> {
    this.#running.child.kill('SIGKILL');
    await this.ended;
  }

  /** Stops it where it runs, and starts it again on the same port. */
  async restart(changes: Partial<ServerOptions> = {}): Promise<void> {
    await this.stop();
    Object.assign(this.#options, changes, { port: this.port });
    this.#running = await launch(this.#options);
  }

  async signUp(person: { email: string; password: string; name: string }): Promise<SignedIn> {
    return signedIn(await this.post('/sign-up/email', person));
  }

  async signIn(person: { email: string; password: string }): Promise<SignedIn> {
    return signedIn(await this.post('/sign-in/email', person));
  }

  async signOut(sessionToken: string): Promise<void> {
    await this.post('/sign-out', {}, sessionToken);
  }

  /** A fresh JWT for the session: what the API wants to see. */
  async tokenFor(sessionToken: string): Promise<string> {
    const { token } = await this.get<{ token: string }>('/token', sessionToken);
    return token;
  }

  get<Answer>(path: string, sessionToken?: string): Promise<Answer> {
    return this.#ask(path, { headers: this.#headers(sessionToken) });
  }

  post<Answer>(path: string, body: object, sessionToken?: string): Promise<Answer> {
    const headers = { ...this.#headers(sessionToken), 'content-type': 'application/json' };
    return this.#ask(path, { method: 'POST', headers, body: JSON.stringify(body) });
  }

  async #ask<Answer>(path: string, init: RequestInit): Promise<Answer> {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    const response = await fetch(`${this.url}/api/auth${path}`, { ...init, signal });
    const body = await response.text();
    if (!response.ok) throw new BetterAuthError(path, response.status, body);
    return JSON.parse(body);
  }

  // A browser names its origin, and Better-Auth refuses a change without it where cookies travel.
  #headers(sessionToken: string | undefined): Record<string, string> {
    const origin = { origin: this.origin };
    return sessionToken ? { ...origin, authorization: `Bearer ${sessionToken}` } : origin;
  }
}

function signedIn({ token, user }: { token: string; user: BetterAuthUser }): SignedIn {
  return { user, sessionToken: token };
}

interface Running extends ReadyLine {
  child: ChildProcess;
}

async function launch(options: BetterAuthOptions): Promise<Running> {
  const { output, nodeEnv = 'development', ...serverOptions } = options;
  const child = startProgram({
    file: program,
    env: {
      ...withoutBetterAuth(process.env),
      NODE_ENV: nodeEnv,
      // PgBouncer rejects the start-up options that set the time zone and the schema.
      BETTER_AUTH_SERVER: JSON.stringify({
        ...serverOptions,
        databaseUrl: bypassPooler(serverOptions.databaseUrl),
      }),
    },
    output: 'pipe',
  });
  const tooLate = setTimeout(() => child.kill('SIGKILL'), READY_TIMEOUT_MS);
  try {
    return { ...(await firstWord(child, output)), child };
  } finally {
    clearTimeout(tooLate);
  }
}

function firstWord(child: ChildProcess, output: BetterAuthOptions['output']): Promise<ReadyLine> {
  return new Promise((resolve, reject) => {
    const complaints: string[] = [];
    let ready = false;
    if (child.stdout) {
      createInterface(child.stdout).on('line', (line) => {
        if (ready) return output?.(line);
        if (!line.startsWith('{"ready":true')) return complaints.push(line);
        ready = true;
        return resolve(JSON.parse(line));
      });
    }
    if (child.stderr) {
      createInterface(child.stderr).on('line', (line) => {
        if (ready) output?.(line);
        else complaints.push(line);
      });
    }
    child.once('error', reject);
    child.once('close', () => {
      const reason = complaints.join('\n').trim() || 'it gave no reason';
      reject(new DevStackError(`Better-Auth did not start: ${reason}`));
    });
  });
}

// Better-Auth reads variables of its own, which would override what it was given here.
function withoutBetterAuth(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const foreign = /^(BETTER_AUTH_|AUTH_SECRET$|NODE_OPTIONS$)/;
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !foreign.test(name)));
}
