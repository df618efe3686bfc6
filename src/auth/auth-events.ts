import { Inject, Injectable } from '@nestjs/common';
import type { Request } from 'express';
import type { Logger } from 'pino';
import { LOG } from '../common/foundation.module.js';
import { Problem } from '../common/problem.js';
import type { Principal } from './principal.js';

/**
 * What happened at the door, in the log and not in a table, which strangers could fill. Never with the
 * token, and never more than a bounded number of lines a minute, which strangers could fill as well.
 */
@Injectable()
export class AuthEvents {
  private readonly announced = new WeakSet<object>();
  private minute = 0;
  private inThisMinute = 0;

  constructor(@Inject(LOG) private readonly log: Logger) {}

  failed(error: unknown, request: Request): void {
    if (!(error instanceof Problem) || error.getStatus() >= 500 || !this.mayWrite()) return;
    this.log.warn(
      {
        event: 'auth.failed',
        code: error.code,
        ...(error.details.reason === undefined ? {} : { reason: error.details.reason }),
        ip: request.ip,
        requestId: request.requestId,
      },
      'auth.failed',
    );
  }

  /** Once for each token: the verifier hands out the same object for as long as it remembers it. */
  accepted({ user, session, token, binding }: Principal, request: Request): void {
    request.userId = user.id;
    if (session?.impersonatedBy) request.impersonatedBy = session.impersonatedBy;
    if (this.announced.has(token)) return;
    this.announced.add(token);
    if (!this.mayWrite()) return;
    this.log.info(
      {
        event: 'auth.accepted',
        userId: user.id,
        ...(session?.impersonatedBy ? { impersonatedBy: session.impersonatedBy } : {}),
        sessionId: session?.id ?? null,
        binding,
        keyId: token.keyId,
        ip: request.ip,
        requestId: request.requestId,
      },
      'auth.accepted',
    );
  }

  private mayWrite(): boolean {
    const minute = Math.floor(performance.now() / 60_000);
    if (minute !== this.minute) {
      if (this.inThisMinute > MOST_A_MINUTE) {
        const leftOut = this.inThisMinute - MOST_A_MINUTE;
        this.log.warn({ event: 'auth.events_left_out', leftOut }, 'auth.events_left_out');
      }
      this.minute = minute;
      this.inThisMinute = 0;
    }
    this.inThisMinute += 1;
    return this.inThisMinute <= MOST_A_MINUTE;
  }
}

const MOST_A_MINUTE = 600;
