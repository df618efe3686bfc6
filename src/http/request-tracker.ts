import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import type { OnApplicationShutdown } from '@nestjs/common';
import type { NextFunction, Request, Response } from 'express';
import type { Logger } from 'pino';
import { requestReceivedAt } from '../database/request-received-at.js';
import { LogThrottles } from '../logging/log-throttle.js';
import { logRequest } from '../logging/logger.js';
import { problem, unavailable } from '../problems/problem.js';
import { sendProblem } from './problem.filter.js';
import { discardRest } from './discard-body.js';
import { SECURITY_HEADERS } from './security-headers.js';

declare module 'express-serve-static-core' {
  interface Request {
    /** Made here, so that no client can choose it or use it twice. */
    requestId: string;
    /** The client's `X-Request-Id`, where it sent a sane one. */
    clientRequestId?: string;
    startedAt: number;
    /** When it is answered by us, if nobody else has done it by then. Not before its body is there. */
    deadline?: number;
    /** What the log line of this request says beside the usual, filled in on the way. */
    problemCode?: string;
    userId?: string;
    impersonatedBy?: string;
    /** It came while an earlier request of its connection was being answered. */
    isPipelined?: true;
  }
}

/** The requests that are being answered: each from the first look at it to its line in the log. */
export class RequestTracker implements OnApplicationShutdown {
  private readonly openResponses = new Set<Response>();
  private readonly pipelined = new WeakMap<Socket, number>();
  private readonly anonymousThrottles: LogThrottles;
  // One look at all of them every now and then costs less than a timer for each.
  private readonly sweep = setInterval(() => this.failOverdue(), SWEEP_MS).unref();
  /** Whether the service is about to end, and so wants its clients' connections to go elsewhere. */
  private draining = false;

  constructor(private readonly log: Logger) {
    this.anonymousThrottles = new LogThrottles(log, 'request');
  }

  get size(): number {
    return this.openResponses.size;
  }

  /** The first thing that happens to a request: Node's server calls it, before it calls Express. */
  readonly onRequest = (request: Request, response: Response): void => {
    // Node gives an answer its socket when those before it are through.
    const ahead = response.socket === null ? this.countPipelined(request) : 0;
    if (ahead > MAX_PIPELINED) return dropPipelined(request, response, ahead);
    request.startedAt = performance.now();
    const sent = request.headers['x-request-id'];
    request.requestId = randomUUID();
    if (typeof sent === 'string' && SANE_ID.test(sent)) request.clientRequestId = sent;
    response.setHeader('X-Request-Id', request.clientRequestId ?? request.requestId);
    for (const [name, value] of SECURITY_HEADERS) response.setHeader(name, value);
    // A proxy that is told to close a connection does not send its next request into it.
    if (this.draining) response.setHeader('Connection', 'close');
    this.openResponses.add(response);
    response.on('close', () => this.onClose(request, response));
    if (ahead < MAX_PIPELINED) return;
    // The requests behind this one are dropped, so that its client can see which were answered.
    response.setHeader('Connection', 'close');
    // Express would do this, but does not get this one.
    request.res = response;
    sendProblem(request, response, problem('RATE_LIMITED', TOO_MANY_AT_ONCE));
  };

  /**
   * One packet can hold thousands of requests. Node starts them all in one turn of the event loop, and
   * every other client waits for that.
   */
  private countPipelined(request: Request): number {
    const ahead = (this.pipelined.get(request.socket) ?? 0) + 1;
    this.pipelined.set(request.socket, ahead);
    request.isPipelined = true;
    return ahead;
  }

  /**
   * Connecting, asking and asking again each have a limit of their own; this one is for their sum. Nobody
   * waits longer for an answer, whatever the database does meanwhile.
   */
  readonly startDeadline = (request: Request, _response: Response, next: NextFunction): void => {
    const now = performance.now();
    request.deadline = now + RESPONSE_DEADLINE_MS;
    if (request.method === 'GET' || request.method === 'HEAD') next();
    else requestReceivedAt.run(now, next);
  };

  drain(): void {
    this.draining = true;
    // A connection that stays open after its last answer would hold the listener's end up.
    for (const response of this.openResponses) {
      if (!response.headersSent) response.setHeader('Connection', 'close');
      else response.once('finish', () => response.req.socket.destroySoon());
    }
  }

  onApplicationShutdown(): void {
    clearInterval(this.sweep);
  }

  private failOverdue(): void {
    const now = performance.now();
    for (const response of this.openResponses) {
      const { req: request, headersSent } = response;
      // Node before 25.9 forgets to close the answers that queued behind another on a lost connection.
      if (request.socket.destroyed) this.onClose(request, response);
      if (headersSent || request.deadline === undefined || request.deadline > now) continue;
      sendProblem(request, response, unavailable('The answer took too long.'));
    }
  }

  private onClose(request: Request, response: Response): void {
    if (!this.openResponses.delete(response)) return;
    if (request.isPipelined) {
      this.pipelined.set(request.socket, (this.pipelined.get(request.socket) ?? 1) - 1);
    }
    if (!request.complete && !request.socket.destroyed) discardRest(request);
    const level = isSuccessfulProbe(request, response) ? 'debug' : 'info';
    if (level === 'debug' && !this.log.isLevelEnabled(level)) return;
    const className = level === 'debug' ? 'probe' : throttleClass(request, response);
    if (className !== undefined && !this.anonymousThrottles.allow(className)) return;
    logRequest(this.log, level, 'request', {
      requestId: request.requestId,
      clientRequestId: request.clientRequestId,
      method: request.method,
      // The route's pattern, not the path: it holds no ids and makes few distinct values.
      route: (request.route as { path?: string } | undefined)?.path ?? null,
      // Node calls it 200 before anyone has said so.
      status: response.headersSent ? response.statusCode : null,
      ms: Math.round((performance.now() - request.startedAt) * 10) / 10,
      // The client left before the answer was through. What is undefined is left out.
      aborted: response.writableFinished ? undefined : true,
      userId: request.userId,
      impersonatedBy: request.impersonatedBy,
      code: request.problemCode,
    });
  }
}

/** Probes come every few seconds from every load balancer: only their failures are worth a line. */
function isSuccessfulProbe(
  { userId, route }: Request,
  { headersSent, statusCode }: Response,
): boolean {
  if (userId !== undefined || !headersSent || statusCode >= 400) return false;
  const path = (route as { path?: string } | undefined)?.path;
  return path !== undefined && /^\/health(\/|$)/.test(path);
}

/**
 * The class of a line that anyone can cause as often as they like: its code or its status class. A user
 * whose requests are too many has a class apart, and undefined is a line that is always written.
 */
function throttleClass(request: Request, response: Response): string | undefined {
  const { userId, problemCode } = request;
  const { headersSent, statusCode } = response;
  if (userId !== undefined) return statusCode === 429 ? 'user RATE_LIMITED' : undefined;
  if (!headersSent) return 'aborted';
  return problemCode ?? `${Math.floor(statusCode / 100)}xx`;
}

/** Not answered and not logged. A client that goes on sending loses its connection. */
function dropPipelined(request: Request, response: Response, ahead: number): void {
  response.destroy();
  if (ahead > MAX_DROPPED) request.socket.destroy();
}

const MAX_PIPELINED = 32;
const MAX_DROPPED = 1000;
const TOO_MANY_AT_ONCE = {
  detail: `A connection may have ${MAX_PIPELINED} requests at a time.`,
  headers: { 'Retry-After': '1' },
};
const SANE_ID = /^[A-Za-z0-9._:-]{1,128}$/;
/** Promised are 2500: the rest is for the sweep, for a process that is busy, and for the way. */
const RESPONSE_DEADLINE_MS = 2200;
const SWEEP_MS = 50;
