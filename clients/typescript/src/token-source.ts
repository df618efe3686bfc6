import { clientProblem, parse, ProblemError } from './problem.js';
import { namedError } from './wait.js';

const TOKEN_TIMEOUT_MS = 10_000;

/** Requests a token from Better-Auth, keeps it in memory, and notices the end of the session. */
export class TokenSource {
  private readonly auth: string;
  private readonly signedIn: RequestInit;
  private readonly signedOut: () => void;
  /** Shared by all calls, so that parallel calls wait for one token request. */
  private token: Promise<string> | undefined;
  private hasEnded = false;

  constructor(auth: string, signedIn: RequestInit, signedOut: () => void) {
    this.auth = auth;
    this.signedIn = signedIn;
    this.signedOut = signedOut;
  }

  current(): Promise<string> {
    if (this.token) return this.token;
    const token = this.request();
    this.token = token;
    token.catch(() => this.drop(token));
    return token;
  }

  /** Drops the token. If another call has renewed the one that failed, the new one stays. */
  drop(token = this.token): void {
    if (this.token === token) this.token = undefined;
  }

  /** Call it for each response other than 401. The next end of the session is a new one. */
  accepted(): void {
    this.hasEnded = false;
  }

  /** Notifies the application once, even for parallel and later calls. */
  ended(): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    // In its own turn, so that an error of the callback does not fail the call.
    setTimeout(this.signedOut);
  }

  private async request(): Promise<string> {
    // Ignores the signals of callers, because other calls wait for the same request.
    const timeout = new AbortController();
    const timer = setTimeout(() => {
      timeout.abort(namedError('TimeoutError', 'Better-Auth timed out.'));
    }, TOKEN_TIMEOUT_MS);
    try {
      const init = { ...this.signedIn, signal: timeout.signal };
      return await this.tokenIn(await fetch(`${this.auth}/token`, init));
    } finally {
      clearTimeout(timer);
    }
  }

  private async tokenIn(response: Response): Promise<string> {
    const body = parse(await response.text()) as { token?: unknown } | null | undefined;
    if (response.ok && typeof body?.token === 'string') return body.token;
    const isSignedOut = response.status === 401;
    if (isSignedOut) this.ended();
    throw new TokenError(response, isSignedOut ? 'NOT_SIGNED_IN' : 'TOKEN_UNAVAILABLE');
  }
}

/** Keeps the response, so that callers receive its headers. */
export class TokenError extends ProblemError {
  readonly response: Response;

  constructor(response: Response, code: 'NOT_SIGNED_IN' | 'TOKEN_UNAVAILABLE') {
    super(clientProblem(response, code));
    this.response = response;
  }
}
