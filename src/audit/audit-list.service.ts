import { Readable } from 'node:stream';
import { Inject, Injectable, StreamableFile } from '@nestjs/common';
import type { Request } from 'express';
import type { Logger } from 'pino';
import { ActorCheck } from '../auth/actor-check.js';
import type { Principal } from '../access/principal.js';
import { decodeCursor, encodeCursor } from '../validation/cursor.js';
import { describeError } from '../logging/describe-error.js';
import { LOG } from '../logging/logger.js';
import { problem } from '../problems/problem.js';
import { type AuditEventList, AuditEventRead, type AuditQuery } from './audit.dto.js';
import {
  type AuditFilter,
  type AuditLines,
  AuditRepository,
  type AuditRow,
} from './audit.repository.js';

@Injectable()
export class AuditListService {
  private readonly exports = new Set<Export>();

  constructor(
    private readonly events: AuditRepository,
    private readonly callers: ActorCheck,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  async list(query: AuditQuery): Promise<AuditEventList> {
    const { limit } = query;
    const found = await this.events.before(filterOf(query), startOf(query), limit + 1);
    const items = found.slice(0, limit);
    const last = items.at(-1);
    const nextCursor = found.length > limit && last ? encodeCursor(cursorOf(last)) : null;
    return {
      items: items.map((event) => AuditEventRead.of(event)),
      pagination: { limit, nextCursor },
    };
  }

  /**
   * All that the filter finds, a line of JSON each. Read in batches, each a query of its own and only
   * when the client has taken the one before: neither memory nor a transaction is held meanwhile.
   */
  async export(by: Principal, query: AuditQuery, request: Request): Promise<StreamableFile> {
    const filter = filterOf(query);
    this.open(by, request);
    // Node closes a connection that has taken no byte for this time. Bytes that the kernel took since
    // the last write count once, so that it may take two such times.
    request.res?.setTimeout((MAX_IDLE_SECONDS / 2) * 1000);
    // Outside the stream, so that a database that is away is still an ordinary problem.
    const first = await this.events.linesBefore(filter, startOf(query), BATCH_SIZE);
    const lines = Readable.from(this.lines(by, filter, first), { objectMode: false });
    return new StreamableFile(lines, { type: 'application/x-ndjson' }).setErrorHandler(
      (error, response) => {
        this.log.warn({ cause: describeError(error) }, 'an export broke off');
        // Too late for a problem: an answer that breaks off is how a client sees that it is not whole.
        response.destroy?.();
      },
    );
  }

  /** What is open is held in memory until its client takes it. */
  private open({ user }: Principal, request: Request): void {
    for (const each of this.exports) if (isClosed(each)) this.exports.delete(each);
    const own = [...this.exports].filter(({ userId }) => userId === user.id);
    if (own.length >= MAX_EXPORTS_PER_USER) {
      throw problem('RATE_LIMITED', {
        detail: `A user may have ${MAX_EXPORTS_PER_USER} exports at a time.`,
        headers: { 'Retry-After': String(MAX_IDLE_SECONDS) },
      });
    }
    this.exports.add({ userId: user.id, request });
  }

  private async *lines(
    by: Principal,
    filter: AuditFilter,
    batch: AuditLines,
  ): AsyncGenerator<Buffer> {
    for (;;) {
      const bytes = Buffer.from(batch.text);
      const { next } = batch;
      // Until the client has taken the bytes, they are not held as text too, nor more than once.
      batch = NO_LINES;
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        yield bytes.subarray(at, at + PIECE_BYTES);
      }
      if (next === null) return;
      await this.callers.requireAdmin(by);
      batch = await this.events.linesBefore(filter, next, BATCH_SIZE);
    }
  }
}

/** An export that was begun, from its first query to the end of its answer. */
interface Export {
  userId: string;
  request: Request;
}

/** Node before 25.9 does not close an answer that waits behind another on a lost connection. */
function isClosed({ request }: Export): boolean {
  return request.res?.destroyed === true || request.socket.destroyed;
}

const MAX_EXPORTS_PER_USER = 2;
const MAX_IDLE_SECONDS = 30;
const BATCH_SIZE = 500;
const PIECE_BYTES = 65_536;
const NO_LINES: AuditLines = { text: '', next: null };
const SORT = '-id';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function cursorOf({ id }: AuditRow) {
  return { sort: SORT, value: id, id };
}

function startOf({ cursor }: AuditQuery): string | null {
  if (cursor === undefined) return null;
  const place = decodeCursor(cursor, SORT, UUID);
  if (place) return place.value;
  throw refused('cursor', 'cursor is not one of this list');
}

function filterOf({ action, actorId, targetUserId, from, to }: AuditQuery): AuditFilter {
  const range = {
    from: from === undefined ? undefined : new Date(from),
    to: to === undefined ? undefined : new Date(to),
  };
  if (range.from && range.to && range.from > range.to) {
    throw refused('from', 'from must not be after to');
  }
  return { action, actorId, targetUserId, ...range };
}

function refused(field: string, message: string) {
  return problem('VALIDATION_ERROR', { errors: [{ field, message }] });
}
