import { PROBLEMS, type Problem, problem } from './problem.js';

type UnauthorizedCode = {
  [Code in keyof typeof PROBLEMS]: (typeof PROBLEMS)[Code]['status'] extends 401 ? Code : never;
}[keyof typeof PROBLEMS];

/**
 * A 401 with the challenge of RFC 6750, section 3. A request without a token gets no error code
 * ("SHOULD NOT include an error code"). Every other one gets `invalid_token`, which covers
 * "expired, revoked, malformed".
 */
export function unauthorized(code: UnauthorizedCode, reason?: string, detail?: string): Problem {
  const error =
    code === 'AUTH_MISSING_TOKEN'
      ? ''
      : `, error="invalid_token", error_description="${PROBLEMS[code].title}"`;
  return problem(code, {
    headers: { 'WWW-Authenticate': `Bearer realm="gatehouse"${error}` },
    ...(reason === undefined ? {} : { reason }),
    ...(detail === undefined ? {} : { detail }),
  });
}
