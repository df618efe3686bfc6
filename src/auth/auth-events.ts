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
  private written = { failed: 0, accepted: 0 };

  constructor(@Inject(LOG) private readonly log: Logger) {}

  failed(error: unknown, request: Request): void {
    if (!(error instanceof Problem) || error.getStatus() >= 500 || !this.mayWrite('failed')) return;
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
    if (!this.mayWrite('accepted')) return;
    this.announced.add(token);
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

  /** Counted apart, so that a flood of the one does not hide the other. */
  private mayWrite(kind: keyof typeof this.written): boolean {
    const minute = Math.floor(performance.now() / 60_000);
    if (minute !== this.minute) {
      for (const [name, count] of Object.entries(this.written)) {
        const leftOut = count - MOST_A_MINUTE;
        if (leftOut <= 0) continue;
        const event = 'auth.events_left_out';
        this.log.warn({ event, of: `auth.${name}`, leftOut }, event);
      }
      this.minute = minute;
      this.written = { failed: 0, accepted: 0 };
    }
    this.written[kind] += 1;
    return this.written[kind] <= MOST_A_MINUTE;
  }
}

const MOST_A_MINUTE = 600;
