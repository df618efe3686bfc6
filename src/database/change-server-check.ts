import type { Logger } from 'pino';
import { LOCKS } from './advisory-locks.js';
import { INCARNATION, MAX_GAP_SECONDS, type Poll, REPLY_TIMEOUT_MS } from './change-table.js';
import { CONNECT_TIMEOUT_MS, UnusableDatabaseError, withConnection } from './connection.js';

/**
 * Verifies every five seconds that a new connection finds the same table as the change feed. An
 * address can move to another server while the feed stays connected to the old one. Once a minute,
 * the check also deletes old rows of the table.
 */
export class ChangeServerCheck {
  /** The last poll of the feed. */
  last: Poll;
  private kept: Poll;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(
    private readonly url: string,
    first: Poll,
    private readonly onFailure: (error: unknown) => void,
    private readonly log: Logger,
  ) {
    this.last = this.kept = first;
  }

  /** Verifies once, and then repeatedly until it fails. */
  async start(): Promise<void> {
    await this.verify();
    this.schedule(performance.now());
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  private schedule(verifiedAt: number): void {
    if (this.stopped) return;
    this.timer = setTimeout(() => void this.repeat(verifiedAt), CHECK_MS).unref();
  }

  private async repeat(verifiedAt: number): Promise<void> {
    try {
      await this.verify();
      this.schedule(performance.now());
    } catch (error) {
      // A database without a free connection also fails this check. Keep the cache for a while:
      // without it, Gatehouse would send that database more queries.
      const isBusy = error instanceof UnusableDatabaseError;
      if (isBusy && performance.now() - verifiedAt < MAX_UNVERIFIED_MS) this.schedule(verifiedAt);
      else if (!this.stopped) this.onFailure(error);
      return;
    }
    await this.deleteOldRows();
  }

  private async verify(): Promise<void> {
    await withConnection(
      this.url,
      async (client) => {
        const { rows } = await client.query<{ isSame: boolean }>(
          `select (${INCARNATION}) = $1 as "isSame"`,
          [this.last.incarnation],
        );
        if (rows[0]?.isSame !== true) throw new Error('DATABASE_URL leads to another server');
      },
      { connectionTimeoutMillis: CONNECT_TIMEOUT_MS, query_timeout: REPLY_TIMEOUT_MS },
    );
  }

  /**
   * Deletes the rows of transactions that ended before an old poll. Every replica has read them, or
   * invalidates everything: both ages are measured by the clock of the server. One replica deletes
   * at a time, and only in the table that it reads.
   */
  private async deleteOldRows(): Promise<void> {
    const { kept, last } = this;
    if (last.read_at - kept.read_at < KEEP_SECONDS) return;
    this.kept = last;
    try {
      await withConnection(this.url, (client) =>
        client.query(
          `delete from gatehouse.change
            where xid < pg_snapshot_xmin($1::pg_snapshot) and xid <> '0'
              and (select (${INCARNATION}) = $2 and pg_try_advisory_xact_lock(${LOCKS.changeTable}))`,
          [kept.snapshot, kept.incarnation],
        ),
      );
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.log.warn({ error: reason }, 'old rows of gatehouse.change were not deleted');
    }
  }
}

const CHECK_MS = 5000;
/** How long the check may fail for lack of a free connection. */
const MAX_UNVERIFIED_MS = 15_000;
const KEEP_SECONDS = 2 * MAX_GAP_SECONDS;
