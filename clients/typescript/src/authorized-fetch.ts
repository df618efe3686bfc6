import { problemIn, problemResponse, secondsToWait } from './problem.js';
import { TokenError, type TokenSource } from './token-source.js';
import { sleep, unlessAborted } from './wait.js';

const MAX_ATTEMPTS = 3;
const MAX_WAIT_SECONDS = 30;

/** RFC 9110, section 9.2.2: sending these twice has the effect of sending them once. */
const IDEMPOTENT = /^(GET|HEAD|PUT|DELETE)$/;

/**
 * Returns a `fetch` that adds the token and repeats requests if a repetition is safe. The body of
 * an unsuccessful response is always a problem. Only URLs below `api` get the token.
 */
export function authorizedFetch(
  tokens: TokenSource,
  api: string,
): (request: Request) => Promise<Response> {
  return async (request) => {
    if (!request.url.startsWith(api)) throw new TypeError('Not a URL of the API');
    let renewed = false;
    for (let attempt = 1; ; attempt += 1) {
      const token = tokens.current();
      let response: Response;
      try {
        response = await send(request, await unlessAborted(token, request.signal));
      } catch (error) {
        if (!(error instanceof TokenError)) throw error;
        return problemResponse(error.problem, error.response);
      }
      if (response.status !== 401) tokens.accepted();
      // A caller who sends If-None-Match expects a 304, which has no body.
      if (response.ok || response.status === 304) return response;

      const problem = await problemIn(response);
      // A 401 was not executed. The token may be old, or of a user who has signed out since.
      if (response.status === 401) {
        tokens.drop(token);
        if (!renewed) {
          renewed = true;
          continue;
        }
        tokens.ended();
        return problemResponse(problem, response);
      }
      const wait = secondsToWait(response) ?? 1;
      const isLast = attempt >= MAX_ATTEMPTS || wait > MAX_WAIT_SECONDS;
      if (isLast || !mayRepeat(response.status, request)) return problemResponse(problem, response);
      await sleep(wait * 1000, request.signal);
    }
  };
}

/** Sends a copy, because the body of a request can be sent only once. */
function send(request: Request, token: string): Promise<Response> {
  const copy = request.clone();
  copy.headers.set('authorization', `Bearer ${token}`);
  return fetch(copy);
}

/**
 * A 429 was not executed. A 503 may have been: with If-Match, a repetition would then get a 412 for
 * the caller's own change.
 */
function mayRepeat(status: number, { method, headers }: Request): boolean {
  return status === 429 || (status === 503 && IDEMPOTENT.test(method) && !headers.has('if-match'));
}
