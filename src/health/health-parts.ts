import { EntityManager } from '@mikro-orm/postgresql';
import { Inject, Injectable } from '@nestjs/common';
import { type HealthIndicatorResult, HealthIndicatorService } from '@nestjs/terminus';
import type { Logger } from 'pino';
import { MIGRATION_NAMES } from '../../mikro-orm.config.js';
import { KeyRing } from '../auth/key-ring.js';
import { LOG } from '../logging/logger.js';
import { ChangeFeed } from '../database/change-feed.js';
import { pendingMigrations } from '../database/pending-migrations.js';

/** The parts that the service stands on, each able to say how it is. */
@Injectable()
export class HealthParts {
  private migrated = false;
  private readonly ping = shared(() => this.pingNow());
  private readonly checkMigrations = shared(() => this.checkMigrationsNow());
  private away = false;

  constructor(
    private readonly health: HealthIndicatorService,
    private readonly em: EntityManager,
    private readonly keys: KeyRing,
    private readonly feed: ChangeFeed,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  async database(): Promise<HealthIndicatorResult> {
    return this.health
      .check('database')
      .attempt(() => this.ping())
      .withTimeout(CHECK_TIMEOUT_MS);
  }

  async migrations(): Promise<HealthIndicatorResult> {
    return this.health
      .check('migrations')
      .attempt(async () => {
        if (!this.migrated) await this.checkMigrations();
      })
      .withTimeout(CHECK_TIMEOUT_MS);
  }

  issuerKeys(): HealthIndicatorResult {
    const part = this.health.check('issuerKeys');
    const { state, keys, lastSuccessAt } = this.keys.status();
    if (state === 'unavailable') return part.down('no usable key set; the issuer does not answer');
    const facts = { keys, fetchedAt: lastSuccessAt?.toISOString() ?? null };
    return state === 'degraded'
      ? part.degraded({ ...facts, message: 'the issuer does not answer; its last keys serve on' })
      : part.up(facts);
  }

  /** Without it every request asks the database: slower, and as true. */
  changeFeed(): HealthIndicatorResult {
    const part = this.health.check('changeFeed');
    const state = this.feed.state();
    return state === 'away'
      ? part.degraded({ state, message: 'every request asks the database' })
      : part.up({ state });
  }

  private async checkMigrationsNow(): Promise<void> {
    // After the database itself, by which visits at once share one question.
    const pending = await this.ping()
      .then(() => pendingMigrations(MIGRATION_NAMES, (sql) => this.ask(sql)))
      .catch(() => null);
    if (pending === null) throw new Error('not known while the database does not answer');
    if (pending.length > 0) throw new Error(`${pending.length} pending: npm run migrate`);
    // They are never taken back while a service runs on them.
    this.migrated = true;
  }

  private async pingNow(): Promise<void> {
    try {
      await this.ask('select 1');
    } catch (error) {
      if (!this.away) this.log.error({ err: error }, 'the database does not answer');
      this.away = true;
      // The real reason names hosts: it is for the log alone.
      throw new Error('the database does not answer', { cause: error });
    }
    if (this.away) this.log.info('the database answers again');
    this.away = false;
  }

  private ask(sql: string): Promise<object[]> {
    return this.em.getConnection().execute<object[]>(sql);
  }
}

/**
 * These routes are public, and the database must not pay for each visit: visits at the same time share
 * one question. No answer is kept, for it would be untrue a moment later; nor does a visit take over
 * the bad answer to a question asked before it: the first one after the database is back finds it back.
 */
function shared(ask: () => Promise<void>): () => Promise<void> {
  let asking: Promise<void> | undefined;
  return async () => {
    if (asking && (await asking.then(yes, no))) return;
    asking ??= ask().finally(() => (asking = undefined));
    await asking;
  };
}

const yes = () => true;
const no = () => false;
/** Before the deadline of every answer (that of `in-flight.ts`), which would not name the part. */
const CHECK_TIMEOUT_MS = 2100;
