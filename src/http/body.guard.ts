import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { Request } from 'express';
import { Environment } from '../config/environment.js';
import { BODY, type BodyRules, JSON_BODY } from './body-rules.js';
import { memoizePerRoute } from './memoize-per-route.js';
import { checkBodyHeaders, hasUnreadBody, limitUnreadBody, readBody } from './read-body.js';
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

  read(request: Request, rules: BodyRules): true | Promise<true> {
    const limit = rules.limit ?? this.environment.BODY_LIMIT;
    checkBodyHeaders(request, rules, limit);
    request.bodyRules = rules;
    pauseDeadline(request);
    if (rules.parse) return this.parse(request, rules, limit);
    request.once('end', () => resumeDeadline(request));
    limitUnreadBody(request, limit);
    return true;
  }

  private async parse(request: Request, rules: BodyRules, limit: number): Promise<true> {
    request.rawBody = await readBody(request, limit);
    resumeDeadline(request);
    request.body = rules.parse?.(request.rawBody, rules);
    return true;
  }
}

/**
 * Runs after authentication, rate limit and roles. The body of a request that they refuse, or that
 * has no route, is not read.
 */
@Injectable()
export class BodyGuard implements CanActivate {
  constructor(private readonly reader: BodyReader) {}

  canActivate(context: ExecutionContext): true | Promise<true> {
    // GraphQL has read its body before it calls a resolver.
    if (context.getType() !== 'http') return true;
    const request = context.getArgByIndex<Request>(0);
    if (hasUnreadBody(request)) return this.reader.read(request, rulesOf(context));
    request.rawBody ??= NO_BYTES;
    return true;
  }
}

const NO_BYTES = Buffer.alloc(0);

const reflector = new Reflector();

const rulesOf = memoizePerRoute(
  (controller, handler): BodyRules =>
    reflector.getAllAndOverride<BodyRules | undefined>(BODY, [handler, controller]) ?? JSON_BODY,
);
