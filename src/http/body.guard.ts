import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import type { Request } from 'express';
import { Environment } from '../config/environment.js';
import { type BodyRules, JSON_BODY } from './body-rules.js';
import { checkBodyHeaders, hasUnreadBody, readBody } from './read-body.js';
import { pauseDeadline, resumeDeadline } from './request-tracker.js';

declare module 'express-serve-static-core' {
  interface Request {
    /** The bytes of the body, for `@RawBody()`, such as the input of a webhook signature. */
    rawBody?: Buffer;
    /** The rules by which the body was accepted. */
    bodyRules?: BodyRules;
  }
}

/** Reads the body of a request by the rules of its route. */
@Injectable()
export class BodyReader {
  constructor(private readonly environment: Environment) {}

  async read(request: Request, rules: BodyRules): Promise<true> {
    const limit = rules.limit ?? this.environment.BODY_LIMIT;
    checkBodyHeaders(request, rules, limit);
    request.bodyRules = rules;
    pauseDeadline(request);
    request.rawBody = await readBody(request, limit);
    resumeDeadline(request);
    request.body = rules.parse?.(request.rawBody, rules);
    return true;
  }
}

/**
 * Runs after authentication, rate limit and roles. Nobody reads the body of a request that they
 * refuse, or that has no route.
 */
@Injectable()
export class BodyGuard implements CanActivate {
  constructor(private readonly reader: BodyReader) {}

  canActivate(context: ExecutionContext): true | Promise<true> {
    // GraphQL has read its body before it calls a resolver.
    if (context.getType() !== 'http') return true;
    const request = context.getArgByIndex<Request>(0);
    return hasUnreadBody(request) ? this.reader.read(request, JSON_BODY) : true;
  }
}
