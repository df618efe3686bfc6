import { Readable } from 'node:stream';
import { Inject, Injectable, StreamableFile } from '@nestjs/common';
import type { Request } from 'express';
import type { Logger } from 'pino';
import { ActorCheck } from '../access/actor-check.js';
import type { Principal } from '../access/principal.js';
import { UsersRepository } from '../better-auth/users.repository.js';
import { type Cursor, decodeCursor } from '../validation/cursor.js';
import { invalidField } from '../validation/invalid-field.js';
import { cutPage } from '../validation/list-page.js';
import { describeError } from '../logging/describe-error.js';
import { LOG } from '../logging/logger.js';
import { problem } from '../problems/problem.js';
import type { AuditEvent } from './audit-event.entity.js';
import { type AuditEventList, AuditEventRead, type AuditQuery } from './audit.dto.js';
import { type AuditFilter, type AuditLines, AuditRepository } from './audit.repository.js';

@Injectable()
export class AuditListService {
  private readonly openExports = new Set<Export>();

  constructor(
    private readonly events: AuditRepository,
    private readonly users: UsersRepository,
    private readonly actorCheck: ActorCheck,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  /** Returns one page of events, newest first. */
  async list(query: AuditQuery): Promise<AuditEventList> {
    const { limit } = query;
    const found = await this.events.findBefore(filterOf(query), startOf(query), limit + 1);
    const { rows, nextCursor } = cutPage(found, limit, cursorOf);
    const users = await this.users.findReferences(rows.flatMap(userIdsOf));
    return {
      items: rows.map((event) => AuditEventRead.of(event, users)),
      pagination: { limit, nextCursor },
    };
  }

  /**
   * Streams every matching event as a JSON line. Each batch is a separate query, which runs only
   * after the client has received the previous batch. So a slow client holds no memory and no
   * transaction.
   */
  async export(principal: Principal, query: AuditQuery, request: Request): Promise<StreamableFile> {
    const filter = filterOf(query);
    this.registerExport(principal, request);
    // Node closes a connection that accepts no byte for this time. Bytes that the kernel accepted
    // after the last write extend the time once, so the limit is half of the maximum.
    request.res?.setTimeout((MAX_IDLE_SECONDS / 2) * 1000);
    // Runs before the stream starts, so that a database outage still gives a problem response.
    const firstBatch = await this.events.findLinesBefore(filter, startOf(query), BATCH_SIZE);
    const lines = Readable.from(this.streamBatches(principal, filter, firstBatch), {
      objectMode: false,
    });
    return new StreamableFile(lines, { type: 'application/x-ndjson' }).setErrorHandler(
      (error, response) => {
        this.log.warn({ cause: describeError(error) }, 'audit export aborted');
        // The status is already sent. Aborting the response shows the client that it is incomplete.
        response.destroy?.();
      },
    );
  }

  /** Limits the open exports of a user, because each of them holds a batch in memory. */
  private registerExport({ user }: Principal, request: Request): void {
    for (const entry of this.openExports) if (isClosed(entry)) this.openExports.delete(entry);
    const own = [...this.openExports].filter(({ userId }) => userId === user.id);
    if (own.length >= MAX_EXPORTS_PER_USER) {
      throw problem('RATE_LIMITED', {
        detail: `A user can run ${MAX_EXPORTS_PER_USER} exports at a time.`,
        headers: { 'Retry-After': String(MAX_IDLE_SECONDS) },
      });
    }
    this.openExports.add({ userId: user.id, request });
  }

  private async *streamBatches(
    principal: Principal,
    filter: AuditFilter,
    batch: AuditLines,
  ): AsyncGenerator<Buffer> {
    for (;;) {
      const bytes = Buffer.from(batch.text);
      const { next } = batch;
      // Releases the text, so that only the bytes stay in memory while the client receives them.
      batch = NO_LINES;
      for (let offset = 0; offset < bytes.length; offset += CHUNK_BYTES) {
        yield bytes.subarray(offset, offset + CHUNK_BYTES);
      }
      if (next === null) return;
      await this.actorCheck.requirePermissions(principal, { audit: ['export'] });
      batch = await this.events.findLinesBefore(filter, next, BATCH_SIZE);
    }
  }
}

/** An export from its first query to the end of its response. */
interface Export {
  userId: string;
  request: Request;
}

/** On a lost connection, Node before 25.9 does not close a response that waits behind another. */
function isClosed({ request }: Export): boolean {
  return request.res?.destroyed === true || request.socket.destroyed;
}

const MAX_EXPORTS_PER_USER = 2;
const MAX_IDLE_SECONDS = 30;
const BATCH_SIZE = 500;
const CHUNK_BYTES = 65_536;
const NO_LINES: AuditLines = { text: '', next: null };
const SORT = '-id';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function cursorOf({ id }: AuditEvent): Cursor {
  return { sort: SORT, value: id, id };
}

function userIdsOf({ actorId, impersonatorId, targetUserId }: AuditEvent): string[] {
  return [actorId, targetUserId, ...(impersonatorId === null ? [] : [impersonatorId])];
}

function startOf({ cursor }: AuditQuery): string | null {
  if (cursor === undefined) return null;
  const decoded = decodeCursor(cursor, SORT, UUID);
  if (decoded) return decoded.value;
  throw invalidField('cursor', 'cursor is not one of this list');
}

function filterOf({ action, actorId, targetUserId, from, to }: AuditQuery): AuditFilter {
  const range = {
    from: from === undefined ? undefined : new Date(from),
    to: to === undefined ? undefined : new Date(to),
  };
  if (range.from && range.to && range.from > range.to) {
    throw invalidField('from', 'from must not be after to');
  }
  return { action, actorId, targetUserId, ...range };
}
