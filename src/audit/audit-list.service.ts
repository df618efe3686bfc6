import { Readable } from 'node:stream';
import { Inject, Injectable, StreamableFile } from '@nestjs/common';
import type { Logger } from 'pino';
import { decodeCursor, encodeCursor } from '../common/cursor.js';
import { LOG } from '../common/foundation.module.js';
import { describeError } from '../common/log.js';
import { problem } from '../common/problem.js';
import { type AuditEventList, AuditEventRead, type AuditQuery } from './audit.dto.js';
import {
  type AuditFilter,
  type AuditLines,
  AuditRepository,
  type AuditRow,
} from './audit.repository.js';

@Injectable()
export class AuditListService {
  constructor(
    private readonly events: AuditRepository,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  async list(query: AuditQuery): Promise<AuditEventList> {
    const { limit } = query;
    const found = await this.events.before(filterOf(query), startOf(query), limit + 1);
    const items = found.slice(0, limit);
    const last = items.at(-1);
    const nextCursor = found.length > limit && last ? encodeCursor(placeOf(last)) : null;
    return {
      items: items.map((event) => AuditEventRead.of(event)),
      pagination: { limit, nextCursor },
    };
  }

  /**
   * All that the filter finds, a line of JSON each. Read in batches, each a query of its own and only
   * when the client has taken the one before: neither memory nor a transaction is held meanwhile.
   */
  async export(query: AuditQuery): Promise<StreamableFile> {
    const filter = filterOf(query);
    // Outside the stream, so that a database that is away is still an ordinary problem.
    const first = await this.events.linesBefore(filter, startOf(query), BATCH);
    const lines = Readable.from(this.lines(filter, first), { objectMode: false });
    return new StreamableFile(lines, { type: 'application/x-ndjson' }).setErrorHandler(
      (error, response) => {
        this.log.warn({ cause: describeError(error) }, 'an export broke off');
        // Too late for a problem: an answer that breaks off is how a client sees that it is not whole.
        response.destroy?.();
      },
    );
  }

  private async *lines(filter: AuditFilter, first: AuditLines): AsyncGenerator<string> {
    let { text, next } = first;
    while (text !== '') {
      yield text;
      if (next === null) return;
      ({ text, next } = await this.events.linesBefore(filter, next, BATCH));
    }
  }
}

const BATCH = 500;
const SORT = '-id';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function placeOf({ id }: AuditRow) {
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
