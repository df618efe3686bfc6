import type { components } from './schema.js';

type ErrorResponse = components['schemas']['ErrorResponse'];

/** RFC 9457. `code` is stable. docs/errors.md lists every code, and what to do about it. */
export type Problem = Omit<ErrorResponse, 'code'> & { code: string };

/** A problem that Gatehouse did not send. Its codes are in no list of Gatehouse's. */
export type ClientProblem = Omit<ErrorResponse, 'code'> & {
  code: 'NOT_SIGNED_IN' | 'TOKEN_UNAVAILABLE' | 'UNEXPECTED_RESPONSE';
};

/** What `orThrow` and `each` throw. Network errors and aborts are thrown as `fetch` does. */
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

interface Result {
  data?: unknown;
  error?: Problem;
  response: Response;
}

type DataOf<Member> = Member extends { data: infer Data } ? Data : never;

/** Returns the data of a response, or throws its problem as a `ProblemError`. */
export async function orThrow<Member extends Result>(
  request: Member | Promise<Member>,
): Promise<DataOf<Member>> {
  const { data, error, response } = await request;
  if (error) throw new ProblemError(error, secondsToWait(response));
  return data as DataOf<Member>;
}

export function secondsToWait({ headers }: Response): number | null {
  const text = headers.get('retry-after') ?? '';
  return /^\d{1,9}$/.test(text) ? Number(text) : null;
}

/** Reads the problem of a response. A proxy's page becomes a problem as well. */
export async function problemIn(response: Response): Promise<Problem> {
  const problem = parse(await response.text()) as Problem | null | undefined;
  const fallback = clientProblem(response);
  return typeof problem?.code === 'string' ? { ...fallback, ...problem } : fallback;
}

/** Returns undefined for a text that is not JSON. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function clientProblem(
  { status, url, headers }: Response,
  code: ClientProblem['code'] = 'UNEXPECTED_RESPONSE',
): ClientProblem {
  return {
    type: 'about:blank',
    title: `HTTP ${status}`,
    status,
    detail: '',
    // React Native has no complete `URL`.
    instance: url.replace(/^[a-z]+:\/\/[^/?#]*|[?#].*$/gi, ''),
    code,
    requestId: headers.get('x-request-id') ?? '',
  };
}

/** A response that openapi-fetch reads as an error with this problem. */
export function problemResponse(problem: Problem, response: Response): Response {
  const headers = new Headers(response.headers);
  // The value belongs to the old body. For the value 0, openapi-fetch would ignore the new body.
  headers.delete('content-length');
  headers.set('content-type', 'application/problem+json');
  // A success is an error too if it contains no token or no JSON.
  const status = response.ok ? 502 : response.status;
  return new Response(JSON.stringify(problem), { status, headers });
}
