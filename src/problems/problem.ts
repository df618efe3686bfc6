import { HttpException } from '@nestjs/common';

interface ProblemKind {
  status: number;
  title: string;
  /** For the people who write clients: when it comes, and what to do. */
  meaning: string;
}

/** Every error that leaves Gatehouse. Clients switch on the code, so a code, once released, stays. */
export const PROBLEMS = {
  VALIDATION_ERROR: {
    status: 400,
    title: 'The request is not valid',
    meaning: '`errors` names each field or query parameter that was refused, and why.',
  },
  MALFORMED_REQUEST: {
    status: 400,
    title: 'The request cannot be read',
    meaning: 'The body is not JSON, or the path or a header is not well formed.',
  },
  AUTH_MISSING_TOKEN: {
    status: 401,
    title: 'A token is required',
    meaning: 'Send `Authorization: Bearer <token>`, with a token from Better-Auth.',
  },
  AUTH_TOKEN_INVALID: {
    status: 401,
    title: 'The token is not valid',
    meaning:
      'It is malformed, not from our issuer or not for us, or its user is gone. Sign in again.',
  },
  AUTH_TOKEN_EXPIRED: {
    status: 401,
    title: 'The token has expired',
    meaning: 'Ask Better-Auth for a new one; the session may still be good.',
  },
  AUTH_SESSION_REVOKED: {
    status: 401,
    title: 'The session has ended',
    meaning: 'It was signed out, revoked or has expired. Sign in again.',
  },
  USER_BANNED: {
    status: 403,
    title: 'The user is banned',
    meaning: '`banReason` and `banExpires` (null: for ever) say why and until when.',
  },
  EMAIL_NOT_VERIFIED: {
    status: 403,
    title: 'The e-mail address is not verified',
    meaning: 'Let the user verify it with Better-Auth, then try again.',
  },
  AUTH_FORBIDDEN: {
    status: 403,
    title: 'Not allowed',
    meaning: 'The token is good, but its user may not do this.',
  },
  NOT_FOUND: {
    status: 404,
    title: 'Not found',
    meaning: 'There is no such route, or no such thing behind it.',
  },
  METHOD_NOT_ALLOWED: {
    status: 405,
    title: 'Method not allowed',
    meaning: 'The path exists, but not with this method; `Allow` lists the ones it has.',
  },
  REQUEST_TIMEOUT: {
    status: 408,
    title: 'The request did not arrive in time',
    meaning: 'Headers have 10 seconds to arrive, and the whole request 30.',
  },
  SELF_BAN: {
    status: 409,
    title: 'Nobody bans themselves',
    meaning: 'Let another admin do it.',
  },
  SELF_DEMOTION: {
    status: 409,
    title: 'Nobody takes their own admin role',
    meaning: 'Let another admin do it.',
  },
  LAST_ADMIN: {
    status: 409,
    title: 'The last admin stays',
    meaning: 'Without this one nobody could administer. Make another admin first.',
  },
  CONFLICT: {
    status: 409,
    title: 'In conflict with what is there',
    meaning: 'What is there already does not allow it. Read it again.',
  },
  PRECONDITION_FAILED: {
    status: 412,
    title: 'It has changed meanwhile',
    meaning:
      '`If-Match` names another version than the one that is there. Nothing was changed; read it again.',
  },
  PAYLOAD_TOO_LARGE: {
    status: 413,
    title: 'The body is too large',
    meaning: 'A body may have 16 KB, unless `BODY_LIMIT` sets another limit.',
  },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    title: 'The body is not of a type that is understood here',
    meaning: 'Send `Content-Type: application/json`, in UTF-8 and not compressed.',
  },
  UNPROCESSABLE: {
    status: 422,
    title: 'The request cannot be carried out',
    meaning: 'It is well formed, but what it asks for makes no sense here.',
  },
  RATE_LIMITED: {
    status: 429,
    title: 'Too many requests',
    meaning:
      'Each user, and each address that nobody is known at, has a number of requests a minute. Try again after `Retry-After` seconds.',
  },
  HEADERS_TOO_LARGE: {
    status: 431,
    title: 'The headers are too large',
    meaning: 'All headers together may have 16 KB.',
  },
  INTERNAL_ERROR: {
    status: 500,
    title: 'Something went wrong here',
    meaning: 'It is our fault. Tell us the `requestId`.',
  },
  SERVICE_UNAVAILABLE: {
    status: 503,
    title: 'Unavailable for the moment',
    meaning: 'The database or the issuer does not answer. Try again after `Retry-After` seconds.',
  },
} as const satisfies Record<string, ProblemKind>;

export type ErrorCode = keyof typeof PROBLEMS;

export interface FieldError {
  field: string;
  message: string;
}

interface ProblemDetails {
  detail?: string;
  errors?: FieldError[];
  headers?: Record<string, string>;
  /** Members of this problem alone (RFC 9457, section 3.2). */
  members?: Record<string, unknown>;
  /** For operators, in the log. It never goes to the client. */
  reason?: string;
}

export class Problem extends HttpException {
  constructor(
    readonly code: ErrorCode,
    readonly details: ProblemDetails = {},
  ) {
    super(PROBLEMS[code].title, PROBLEMS[code].status);
  }
}

/** `throw problem('NOT_FOUND')` */
export function problem(code: ErrorCode, details: ProblemDetails = {}): Problem {
  return new Problem(code, details);
}

/** How long a client should wait when we cannot say better. */
export const RETRY_AFTER_SECONDS = 2;

export function unavailable(detail: string): Problem {
  return problem('SERVICE_UNAVAILABLE', {
    detail,
    headers: { 'Retry-After': String(RETRY_AFTER_SECONDS) },
  });
}

/** RFC 9457, section 3.1; the type is a name and not an address, so that it outlives every host. */
export function problemBody(refusal: Problem, instance: string, requestId: string) {
  const { status, title, meaning } = PROBLEMS[refusal.code];
  const { detail, errors, members } = refusal.details;
  return {
    type: `urn:gatehouse:problem:${refusal.code.toLowerCase().replaceAll('_', '-')}`,
    title,
    status,
    detail: detail ?? meaning,
    instance,
    code: refusal.code,
    requestId,
    ...(errors ? { errors } : {}),
    ...members,
  };
}
