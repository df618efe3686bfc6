import { Inject, Injectable } from '@nestjs/common';
import type { Request } from 'express';
import type { Logger } from 'pino';
import { LOG } from '../logging/logger.js';
import { LogThrottle, LogThrottles } from '../logging/log-throttle.js';
import { Problem } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { clientAddress } from '../http/client-address.js';
import type { Principal } from '../access/principal.js';

/**
 * Logs accepted and failed authentication. It uses the log and not a table, which strangers could
 * fill. The lines never contain the token, and their number per minute is bounded.
 */
@Injectable()
export class AuthEvents {
  private readonly announcedTokens = new WeakSet<object>();
  // Separate throttles, so that a flood of failures does not suppress accepted tokens.
  private readonly failureThrottles: LogThrottles;
  private readonly acceptedThrottle: LogThrottle;
  private shouldWarnAboutProxy: boolean;

  constructor(
    @Inject(LOG) private readonly log: Logger,
    { trustProxy }: Environment,
  ) {
    this.failureThrottles = new LogThrottles(log, 'auth.failed', MAX_FAILURES_A_MINUTE);
    this.acceptedThrottle = new LogThrottle(log, 'auth.accepted');
    this.shouldWarnAboutProxy = trustProxy === false;
  }

  /** Warns once per process. A stranger can send the header, too, so the message says "if". */
  warnAboutIgnoredProxy({ headers }: Request): void {
    if (!this.shouldWarnAboutProxy || !(headers['x-forwarded-for'] ?? headers['forwarded'])) return;
    this.shouldWarnAboutProxy = false;
    this.log.warn(
      { event: 'proxy.ignored' },
      'A request has X-Forwarded-For or Forwarded, but TRUST_PROXY is off. If a proxy is in front, ' +
        'all its clients count as one address: set TRUST_PROXY.',
    );
  }

  /** Logs a refused token. An outage is not logged here. */
  failed(error: unknown, request: Request): void {
    if (!(error instanceof Problem) || error.getStatus() >= 500) return;
    if (!this.failureThrottles.allow([error.code, error.details.reason].filter(Boolean).join(' ')))
      return;
    this.log.warn(
      {
        event: 'auth.failed',
        code: error.code,
        ...(error.details.reason === undefined ? {} : { reason: error.details.reason }),
        ip: clientAddress(request),
        requestId: request.requestId,
      },
      'auth.failed',
    );
  }

  /** Logs once per token. The verifier returns the same object while the token is cached. */
  accepted({ user, session, token, binding, impersonatedBy }: Principal, request: Request): void {
    request.userId = user.id;
    if (impersonatedBy !== null) request.impersonatedBy = impersonatedBy;
    if (this.announcedTokens.has(token)) return;
    if (!this.acceptedThrottle.allow()) return;
    this.announcedTokens.add(token);
    this.log.info(
      {
        event: 'auth.accepted',
        userId: user.id,
        ...(impersonatedBy === null ? {} : { impersonatedBy }),
        sessionId: session?.id ?? null,
        binding,
        keyId: token.keyId,
        ip: clientAddress(request),
        requestId: request.requestId,
      },
      'auth.accepted',
    );
  }
}

/** The limit for each code and reason. There are about thirty of them. */
const MAX_FAILURES_A_MINUTE = 100;
