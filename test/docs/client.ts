/** RFC 9457. `code` is stable: docs/errors.md lists every code, and what to do about it. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  instance: string;
  code: string;
  requestId: string;
  errors?: { field: string; message: string }[];
  missing?: Record<string, string[]>;
  banReason?: string | null;
  banExpires?: string | null;
}

/** Every response that is not a success. Network errors and aborts are thrown as `fetch` does. */
export class ProblemError extends Error {
  override name = 'ProblemError';
  readonly problem: Problem;
  readonly retryAfterSeconds: number | null;

  constructor(problem: Problem, retryAfterSeconds: number | null = null) {
    super(`${problem.status} ${problem.code}: ${problem.detail || problem.title}`);
    this.problem = problem;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

export interface CallOptions {
  body?: unknown;
  ifMatch?: string | null;
  signal?: AbortSignal | null;
}

const MAX_ATTEMPTS = 3;
const MAX_WAIT_SECONDS = 30;
const TOKEN_TIMEOUT_MS = 10_000;

/** RFC 9110, section 9.2.2: sending these twice has the effect of sending them once. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'PUT', 'DELETE']);

export class Gatehouse {
  private readonly api: string;
  private readonly auth: string;
  private readonly signedIn: RequestInit;
  /** Shared by all calls, so that parallel calls wait for one token request. */
  private token: Promise<string> | undefined;

  /**
   * `api` is https://api.example.com/api/v1, `auth` https://auth.example.com/api/auth. A browser
   * sends the cookie of its sign-in. Other clients need Better-Auth's plugin bearer(), and pass
   * { headers: { authorization: `Bearer ${sessionToken}` } }.
   */
  constructor(api: string, auth: string, signedIn: RequestInit = { credentials: 'include' }) {
    this.api = api;
    this.auth = auth;
    this.signedIn = signedIn;
  }

  async call<Result>(method: string, path: string, options: CallOptions = {}) {
    let renewed = false;
    for (let attempt = 1; ; attempt += 1) {
      const token = this.currentToken();
      const response = await this.send(await unlessAborted(token, options), method, path, options);
      const text = await response.text();
      if (response.ok) {
        const body = (text === '' ? undefined : parse(text, response)) as Result;
        return { body, etag: response.headers.get('etag') };
      }

      const error = new ProblemError(problemIn(text, response), secondsToWait(response));
      // A 401 was not executed. The token may be old, or of somebody who has signed out since.
      if (response.status === 401) {
        this.drop(token);
        if (renewed) throw error;
        renewed = true;
        continue;
      }
      const wait = error.retryAfterSeconds ?? 1;
      if (attempt >= MAX_ATTEMPTS || wait > MAX_WAIT_SECONDS) throw error;
      if (!mayRepeat(response.status, method, options)) throw error;
      await sleep(wait * 1000, options);
    }
  }

  /** Call it after a sign-in or sign-out: the token in memory may be somebody else's. */
  forgetToken(): void {
    this.token = undefined;
  }

  private send(token: string, method: string, path: string, options: CallOptions) {
    const { body, ifMatch, signal } = options;
    return fetch(this.api + path, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(ifMatch ? { 'if-match': ifMatch } : {}),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ?? null,
    });
  }

  private currentToken(): Promise<string> {
    if (this.token) return this.token;
    const token = this.requestToken();
    this.token = token;
    token.catch(() => this.drop(token));
    return token;
  }

  /** Another call may have renewed it already: that one stays. */
  private drop(token: Promise<string>): void {
    if (this.token === token) this.token = undefined;
  }

  private async requestToken(): Promise<string> {
    // No signal of a caller: other calls wait for the same request.
    const signal = AbortSignal.timeout(TOKEN_TIMEOUT_MS);
    const response = await fetch(`${this.auth}/token`, { ...this.signedIn, signal });
    const text = await response.text();
    if (response.status === 401) throw new ProblemError(madeUp(response, 'NOT_SIGNED_IN'));
    const { token } = (response.ok ? parse(text, response) : {}) as { token?: unknown };
    if (typeof token === 'string') return token;
    throw new ProblemError(madeUp(response, 'TOKEN_UNAVAILABLE'), secondsToWait(response));
  }
}

/**
 * A 429 was not executed. A 503 may have been: with If-Match, a repetition would then get a 412 for
 * the caller's own change.
 */
function mayRepeat(status: number, method: string, { ifMatch }: CallOptions): boolean {
  return status === 429 || (status === 503 && IDEMPOTENT.has(method) && !ifMatch);
}

function secondsToWait({ headers }: Response): number | null {
  const text = headers.get('retry-after') ?? '';
  return /^\d{1,9}$/.test(text) ? Number(text) : null;
}

function problemIn(text: string, response: Response): Problem {
  try {
    const problem = JSON.parse(text) as Problem | null;
    if (typeof problem?.code === 'string') return { ...madeUp(response, ''), ...problem };
  } catch {
    // A proxy's page.
  }
  return madeUp(response, 'UNEXPECTED_RESPONSE');
}

function parse(text: string, response: Response): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ProblemError(madeUp(response, 'UNEXPECTED_RESPONSE'));
  }
}

/** A problem that Gatehouse did not send. Its codes are in no list of Gatehouse's. */
function madeUp({ status, url, headers }: Response, code: string): Problem {
  return {
    type: 'about:blank',
    title: `HTTP ${status}`,
    status,
    detail: '',
    instance: url === '' ? '' : new URL(url).pathname,
    code,
    requestId: headers.get('x-request-id') ?? '',
  };
}

async function sleep(milliseconds: number, options: CallOptions): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const waited = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  await unlessAborted(waited, options).finally(() => clearTimeout(timer));
}

function unlessAborted<Result>(work: Promise<Result>, { signal }: CallOptions): Promise<Result> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
    const done = () => signal.removeEventListener('abort', abort);
    work.then(resolve, reject).finally(done);
  });
}

export interface User {
  id: string;
  name: string;
  email: string;
}

export async function greet(gatehouse: Gatehouse): Promise<string> {
  try {
    const { body: me } = await gatehouse.call<User>('GET', '/auth/me');
    return `Hello, ${me.name}.`;
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    const { status, code, banReason, banExpires } = error.problem;
    if (status === 401) return 'Please sign in again.';
    if (code !== 'USER_BANNED') throw error;
    return `You are banned until ${banExpires ?? 'further notice'}: ${banReason ?? 'no reason given'}.`;
  }
}

export async function rename(gatehouse: Gatehouse, id: string, change: (name: string) => string) {
  for (;;) {
    const { body: user, etag } = await gatehouse.call<User>('GET', `/users/${id}`);
    const body = { name: change(user.name) };
    try {
      return await gatehouse.call<User>('PATCH', `/users/${id}`, { body, ifMatch: etag });
    } catch (error) {
      // 412: somebody else has changed the user meanwhile. Read it again.
      if (!(error instanceof ProblemError && error.problem.status === 412)) throw error;
    }
  }
}

export async function* everyUser(gatehouse: Gatehouse, filter: Record<string, string> = {}) {
  const query = new URLSearchParams({ ...filter, limit: '100', total: 'none' });
  for (;;) {
    const { body } = await gatehouse.call<{
      items: User[];
      pagination: { nextCursor: string | null };
    }>('GET', `/users?${query.toString()}`);
    yield* body.items;
    if (body.pagination.nextCursor === null) return;
    query.set('cursor', body.pagination.nextCursor);
  }
}

export interface Session {
  id: string;
  current: boolean;
  device: { browser: string | null; system: string | null };
}

export async function mySessions(gatehouse: Gatehouse, myId: string): Promise<Session[]> {
  const { body } = await gatehouse.call<{ items: Session[] }>('GET', `/users/${myId}/sessions`);
  return body.items;
}

export async function signOutFrom(gatehouse: Gatehouse, myId: string, sessionId: string) {
  try {
    await gatehouse.call('DELETE', `/users/${myId}/sessions/${sessionId}`);
  } catch (error) {
    // It has ended already, perhaps by the first of two attempts.
    const isGone = error instanceof ProblemError && error.problem.code === 'SESSION_NOT_FOUND';
    if (!isGone) throw error;
  }
}

export async function signOutElsewhere(gatehouse: Gatehouse, myId: string) {
  await gatehouse.call('DELETE', `/users/${myId}/sessions?except=current`);
}
