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
 * What happened at the door, in the log and not in a table, which strangers could fill. Never with the
 * token, and never more than a bounded number of lines a minute, which strangers could fill as well.
 */
@Injectable()
export class AuthEvents {
  private readonly announcedTokens = new WeakSet<object>();
  // Counted apart, so that a flood of the one does not hide the other.
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

  /** Once for each process. A stranger can send the header, too, so the text says "if". */
  warnAboutIgnoredProxy({ headers }: Request): void {
    if (!this.shouldWarnAboutProxy || !(headers['x-forwarded-for'] ?? headers['forwarded'])) return;
    this.shouldWarnAboutProxy = false;
    this.log.warn(
      { event: 'proxy.ignored' },
      'A request came with X-Forwarded-For or Forwarded, but TRUST_PROXY is off. If a proxy stands in ' +
        'front, all its clients count as one address: set TRUST_PROXY.',
    );
  }

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

  /** Once for each token: the verifier hands out the same object for as long as it remembers it. */
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

/** For each code and reason, of which there are some thirty. */
const MAX_FAILURES_A_MINUTE = 100;
