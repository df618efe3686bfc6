import { HttpException } from '@nestjs/common';

export interface ProblemKind {
  status: number;
  title: string;
  /** For client developers: when it occurs, and what to do. Also the default `detail`. */
  meaning: string;
}

/**
 * Every error that Gatehouse sends. Clients switch on the code, so a released code never changes.
 */
export const PROBLEMS = {
  VALIDATION_ERROR: {
    status: 400,
    title: 'The request is invalid',
    meaning: '`errors` lists each invalid field or query parameter with the reason.',
  },
  MALFORMED_REQUEST: {
    status: 400,
    title: 'The request is malformed',
    meaning: 'The body is not valid JSON, or the path or a header is malformed.',
  },
  AUTH_MISSING_TOKEN: {
    status: 401,
    title: 'A bearer token is required',
    meaning: 'Send `Authorization: Bearer <token>` with a token from Better-Auth.',
  },
  AUTH_TOKEN_INVALID: {
    status: 401,
    title: 'The token is invalid',
    meaning:
      'The token is malformed, was not issued by this issuer or for this audience, or its user was deleted. Sign in again. If that does not help, the log of the server has the reason.',
  },
  AUTH_TOKEN_EXPIRED: {
    status: 401,
    title: 'The token has expired',
    meaning: 'Get a new token from Better-Auth. The session may still be active.',
  },
  AUTH_SESSION_REVOKED: {
    status: 401,
    title: 'The session has ended',
    meaning: 'The session expired or was revoked, or the user signed out. Sign in again.',
  },
  USER_BANNED: {
    status: 403,
    title: 'The user is banned',
    meaning:
      '`banReason` is the reason. `banExpires` is the end of the ban, or null if it is permanent.',
  },
  EMAIL_NOT_VERIFIED: {
    status: 403,
    title: 'The email address is not verified',
    meaning: 'Verify the email address with Better-Auth, then try again.',
  },
  AUTH_FORBIDDEN: {
    status: 403,
    title: 'Access denied',
    meaning:
      'The token is valid, but the user does not have permission for this request. `missing` lists the missing permissions, if the route requires any.',
  },
  ROLE_ESCALATION: {
    status: 403,
    title: 'The permissions exceed your own',
    meaning:
      'The other user, or a role in the request, has permissions that you do not have. Nothing was changed.',
  },
  NOT_FOUND: {
    status: 404,
    title: 'Not found',
    meaning: 'The route or the resource does not exist.',
  },
  USER_NOT_FOUND: {
    status: 404,
    title: 'The user does not exist',
    meaning: 'No user has this id. The user may have been deleted.',
  },
  SESSION_NOT_FOUND: {
    status: 404,
    title: 'The session does not exist',
    meaning: 'The session has already ended, or it belongs to another user.',
  },
  METHOD_NOT_ALLOWED: {
    status: 405,
    title: 'Method not allowed',
    meaning: 'The path does not support this method. `Allow` lists the supported methods.',
  },
  REQUEST_TIMEOUT: {
    status: 408,
    title: 'The request timed out',
    meaning: 'The headers must arrive within 10 seconds, and the whole request within 30 seconds.',
  },
  SELF_BAN: {
    status: 409,
    title: 'You cannot ban yourself',
    meaning: 'Only another user who may ban can ban you.',
  },
  SELF_DEMOTION: {
    status: 409,
    title: 'You cannot remove your own right to set roles',
    meaning: 'Only another user who may set roles can remove it. So one such user always remains.',
  },
  COUNT_MISMATCH: {
    status: 409,
    title: 'A different number of sessions matches',
    meaning: 'No session has ended. `matched` is the number that matches now. Repeat the dry run.',
  },
  CONFLICT: {
    status: 409,
    title: 'The request conflicts with the current state',
    meaning: 'The current state of the resource does not allow this change. Fetch it again.',
  },
  PRECONDITION_FAILED: {
    status: 412,
    title: 'The resource has changed',
    meaning:
      '`If-Match` does not match the current version. No change was made. Fetch the resource again.',
  },
  PAYLOAD_TOO_LARGE: {
    status: 413,
    title: 'The body is too large',
    meaning: 'The default limit is 16 KB. `BODY_LIMIT` or the route can set another one.',
  },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    title: 'The body has an unsupported media type',
    meaning:
      'Send `Content-Type: application/json` in UTF-8 without compression, unless the route documents another type.',
  },
  UNPROCESSABLE: {
    status: 422,
    title: 'The request cannot be processed',
    meaning: 'The request is well-formed, but its values are not allowed for this resource.',
  },
  RATE_LIMITED: {
    status: 429,
    title: 'Too many requests',
    meaning:
      'The rate limit of the user or of the IP address is exceeded. Try again after `Retry-After` seconds.',
  },
  HEADERS_TOO_LARGE: {
    status: 431,
    title: 'The headers are too large',
    meaning: 'All headers together are limited to 16 KB.',
  },
  INTERNAL_ERROR: {
    status: 500,
    title: 'Internal server error',
    meaning: 'An unexpected error occurred. Report the `requestId`.',
  },
  SERVICE_UNAVAILABLE: {
    status: 503,
    title: 'Service temporarily unavailable',
    meaning:
      'The database or the token issuer is unavailable, or the response took too long. Try again after `Retry-After` seconds.',
  },
  CLIENT_ERROR: {
    status: 400,
    title: 'The request was refused',
    meaning: 'The server refused the request. `status` and `detail` state the reason.',
  },
} as const satisfies Record<string, ProblemKind>;

export type ErrorCode = keyof typeof PROBLEMS;

const kinds = new Map<string, ProblemKind>(Object.entries(PROBLEMS));

/** All error codes, including registered ones. */
export function problemKinds(): ReadonlyMap<string, ProblemKind> {
  return kinds;
}

export function kindOf(code: string): ProblemKind {
  const kind = kinds.get(code);
  if (!kind) throw new Error(`Unknown error code ${code}: register it with registerProblems().`);
  return kind;
}

/** Adds error codes of your own. Returns a function that creates these problems. */
export function registerProblems<Code extends string>(own: Record<Code, ProblemKind>) {
  for (const [code, kind] of Object.entries<ProblemKind>(own)) {
    if (kinds.has(code)) throw new Error(`The error code ${code} exists already.`);
    kinds.set(code, kind);
  }
  return (code: Code, details: ProblemDetails = {}) => new Problem(code, details);
}

export interface FieldError {
  field: string;
  message: string;
}

interface ProblemDetails {
  /** Replaces the status of the code. */
  status?: number;
  detail?: string;
  errors?: FieldError[];
  headers?: Record<string, string>;
  /** Extension members of this problem (RFC 9457, section 3.2). */
  members?: Record<string, unknown>;
  /** For operators, in the log only. The client never receives it. */
  reason?: string;
}

export class Problem extends HttpException {
  constructor(
    readonly code: string,
    readonly details: ProblemDetails = {},
  ) {
    const { title, status } = kindOf(code);
    super(title, details.status ?? status);
  }
}

/** `throw problem('NOT_FOUND')` */
export function problem(code: ErrorCode, details: ProblemDetails = {}): Problem {
  return new Problem(code, details);
}

/** How long a client should wait when no better estimate exists. */
export const RETRY_AFTER_SECONDS = 2;

export function unavailable(detail: string): Problem {
  return problem('SERVICE_UNAVAILABLE', {
    detail,
    headers: { 'Retry-After': String(RETRY_AFTER_SECONDS) },
  });
}

/** RFC 9457, section 3.1. The type is a URN and not a URL, so that it does not depend on a host. */
export function problemBody(error: Problem, instance: string, requestId: string) {
  const { title, meaning } = kindOf(error.code);
  const { detail, errors, members } = error.details;
  return {
    type: `urn:gatehouse:problem:${error.code.toLowerCase().replaceAll('_', '-')}`,
    title,
    status: error.getStatus(),
    detail: detail ?? meaning,
    instance,
    code: error.code,
    requestId,
    ...(errors ? { errors } : {}),
    ...members,
  };
}
