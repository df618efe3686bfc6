import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import type { OnApplicationShutdown } from '@nestjs/common';
import type { NextFunction, Request, Response } from 'express';
import { currentRequest, RESPONSE_DEADLINE_MS } from '../database/current-request.js';
import { LogThrottles } from '../logging/log-throttle.js';
import type { ProcessLogger } from '../logging/logger.js';
import type { Metrics } from '../metrics/metrics.js';
import { activeTraceId } from '../tracing/tracing.js';
import { problem, unavailable } from '../problems/problem.js';
import { sendProblem } from './problem.filter.js';
import { discardBody } from './discard-body.js';
import { type RequestDurations, requestDurations } from './request-durations.js';
import { SECURITY_HEADERS } from './security-headers.js';

declare module 'express-serve-static-core' {
  interface Request {
    /** Generated here, so that a client can neither choose nor reuse it. */
    requestId: string;
    /** The client's `X-Request-Id`, if it is valid. */
    clientRequestId?: string;
    startedAt: number;
    /** The trace of OpenTelemetry, if it is on. */
    traceId?: string | undefined;
    /** When the tracker fails the request (`performance.now()`). */
    deadline?: number;
    /** Since when the deadline stands still, because the body of the request arrives. */
    pausedAt?: number | undefined;
    /** Additional members of the log line, set while the request is handled. */
    problemCode?: string;
    userId?: string;
    impersonatedBy?: string;
    /** Whether it arrived before the response to an earlier request of its connection. */
    isPipelined?: true;
  }
}

/** Tracks the requests in flight: sets their headers, enforces their deadline and logs them. */
export class RequestTracker implements OnApplicationShutdown {
  private readonly openResponses = new Set<Response>();
  private readonly pipelined = new WeakMap<Socket, number>();
  private readonly anonymousThrottles: LogThrottles;
  private readonly durations: RequestDurations | undefined;
  // One periodic sweep over all requests costs less than a timer for each.
  private readonly sweep = setInterval(() => this.failOverdue(), SWEEP_MS).unref();
  /** Whether the service is shutting down and closes its connections. */
  private draining = false;

  constructor(
    private readonly log: ProcessLogger,
    metrics: Metrics,
  ) {
    this.anonymousThrottles = new LogThrottles(log, 'request');
    this.durations = requestDurations(metrics);
  }

  get size(): number {
    return this.openResponses.size;
  }

  /** Node's server calls this first, before Express. */
  readonly onRequest = (request: Request, response: Response): void => {
    // Node assigns the socket once the earlier responses of the connection are sent.
    const pipelined = response.socket === null ? this.countPipelined(request) : 0;
    if (pipelined > MAX_PIPELINED) return dropPipelined(request, response, pipelined);
    request.startedAt = performance.now();
    const clientId = request.headers['x-request-id'];
    request.requestId = randomUUID();
    if (activeTraceId) request.traceId = activeTraceId();
    if (typeof clientId === 'string' && CLIENT_ID.test(clientId)) {
      request.clientRequestId = clientId;
    }
    response.setHeader('X-Request-Id', request.clientRequestId ?? request.requestId);
    for (const [name, value] of SECURITY_HEADERS) response.setHeader(name, value);
    // A proxy does not reuse a connection after `Connection: close`.
    if (this.draining) response.setHeader('Connection', 'close');
    this.openResponses.add(response);
    response.on('close', () => this.onClose(request, response));
    if (pipelined < MAX_PIPELINED) return;
    // Later requests are dropped. Closing the connection shows the client which were handled.
    response.setHeader('Connection', 'close');
    // Express, which does not receive this request, would set it.
    request.res = response;
    sendProblem(request, response, problem('RATE_LIMITED', TOO_MANY_PIPELINED));
  };

  /**
   * One packet can contain thousands of requests. Node emits them all in one turn of the event
   * loop, and every other client waits meanwhile.
   */
  private countPipelined(request: Request): number {
    const count = (this.pipelined.get(request.socket) ?? 0) + 1;
    this.pipelined.set(request.socket, count);
    request.isPipelined = true;
    return count;
  }

  /**
   * Connections, queries and retries have timeouts of their own. This deadline limits their sum, so
   * that a response never takes longer, whatever the state of the database.
   */
  readonly begin = (request: Request, _response: Response, next: NextFunction): void => {
    request.deadline = performance.now() + RESPONSE_DEADLINE_MS;
    if (request.method === 'GET' || request.method === 'HEAD') next();
    else currentRequest.run(request, next);
  };

  /** The response that Node sends on this connection now. Later pipelined ones have no socket. */
  currentResponse(socket: Socket): Response | undefined {
    for (const response of this.openResponses) {
      if (response.socket === socket) return response;
    }
    return undefined;
  }

  drain(): void {
    this.draining = true;
    // A connection that stays open after its last response would delay the shutdown.
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
      // Node before 25.9 emits no `close` for queued responses of a lost connection.
      if (request.socket.destroyed) this.onClose(request, response);
      // The body may have arrived without a reader that takes it.
      if (request.pausedAt !== undefined && request.complete) resumeDeadline(request);
      if (headersSent || request.deadline === undefined || request.deadline > now) continue;
      if (request.pausedAt !== undefined) continue;
      sendProblem(request, response, unavailable('The response took too long.'));
    }
  }

  private onClose(request: Request, response: Response): void {
    if (!this.openResponses.delete(response)) return;
    if (request.isPipelined) {
      this.pipelined.set(request.socket, (this.pipelined.get(request.socket) ?? 1) - 1);
    }
    if (!request.complete && !request.socket.destroyed) discardBody(request);
    const ms = performance.now() - request.startedAt;
    this.durations?.observe(request, response, ms / 1000);
    const level = isSuccessfulProbe(request, response) ? 'debug' : 'info';
    if (level === 'debug' && !this.log.isLevelEnabled(level)) return;
    const className = level === 'debug' ? 'probe' : throttleClass(request, response);
    if (className !== undefined && !this.anonymousThrottles.allow(className)) return;
    this.log.logRequest(level, {
      requestId: request.requestId,
      clientRequestId: request.clientRequestId,
      trace_id: request.traceId,
      method: request.method,
      // The route's pattern, not the path: it holds no ids and makes few distinct values.
      route: (request.route as { path?: string } | undefined)?.path ?? null,
      // The default of Node is 200, even if no response was sent.
      status: response.headersSent ? response.statusCode : null,
      ms: Math.round(ms * 10) / 10,
      // The client disconnected before the response was complete. JSON omits undefined members.
      aborted: response.writableFinished ? undefined : true,
      userId: request.userId,
      impersonatedBy: request.impersonatedBy,
      code: request.problemCode,
    });
  }
}

/** While the body arrives, only Node's `requestTimeout` applies. */
export function pauseDeadline(request: Request): void {
  request.pausedAt = performance.now();
}

export function resumeDeadline(request: Request): void {
  const { deadline, pausedAt } = request;
  request.pausedAt = undefined;
  if (deadline === undefined || pausedAt === undefined) return;
  request.deadline = deadline + performance.now() - pausedAt;
}

/** Load balancers send probes every few seconds, so only failed ones are logged by default. */
function isSuccessfulProbe(
  { userId, route }: Request,
  { headersSent, statusCode }: Response,
): boolean {
  if (userId !== undefined || !headersSent || statusCode >= 400) return false;
  const path = (route as { path?: string } | undefined)?.path;
  return path !== undefined && /^\/health(\/|$)/.test(path);
}

/**
 * The throttle class of a line that any client can cause: its problem code or its status class.
 * Rate limited requests of users have a class of their own. Undefined means that the line is not
 * throttled.
 */
function throttleClass(request: Request, response: Response): string | undefined {
  const { userId, problemCode } = request;
  const { headersSent, statusCode } = response;
  if (userId !== undefined) return statusCode === 429 ? 'user RATE_LIMITED' : undefined;
  if (!headersSent) return 'aborted';
  return problemCode ?? `${Math.floor(statusCode / 100)}xx`;
}

/** Sends no response and logs nothing. A client that keeps sending loses its connection. */
function dropPipelined(request: Request, response: Response, pipelined: number): void {
  response.destroy();
  if (pipelined > MAX_DROPPED) request.socket.destroy();
}

const MAX_PIPELINED = 32;
const MAX_DROPPED = 1000;
const TOO_MANY_PIPELINED = {
  detail: `A connection is limited to ${MAX_PIPELINED} pipelined requests.`,
  headers: { 'Retry-After': '1' },
};
const CLIENT_ID = /^[A-Za-z0-9._:-]{1,128}$/;
const SWEEP_MS = 50;
