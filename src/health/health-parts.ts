import { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import { type HealthIndicatorResult, HealthIndicatorService } from '@nestjs/terminus';
import { KeyRing } from '../auth/key-ring.js';
import { pendingMigrations } from '../database/pending-migrations.js';

/** The parts that the service stands on, each able to say how it is. */
@Injectable()
export class HealthParts {
  private migrated = false;

  constructor(
    private readonly health: HealthIndicatorService,
    private readonly em: EntityManager,
    private readonly keys: KeyRing,
  ) {}

  /** Kept for a moment: these routes are public, and the database must not pay for each visit. */
  async database(): Promise<HealthIndicatorResult> {
    return this.health
      .check('database')
      .attempt(async () => {
        await this.ask('select 1').catch(() => {
          // The real reason names hosts; the log has it.
          throw new Error('the database does not answer');
        });
      })
      .withTimeout(ANSWER_MS)
      .cacheFor(KEEP_MS);
  }

  async migrations(): Promise<HealthIndicatorResult> {
    return this.health
      .check('migrations')
      .attempt(async () => {
        if (this.migrated) return;
        const pending = await pendingMigrations((sql) => this.ask(sql)).catch(() => null);
        if (pending === null) throw new Error('not known while the database does not answer');
        if (pending.length > 0) throw new Error(`${pending.length} pending: npm run migrate`);
        // They are never taken back while a service runs on them.
        this.migrated = true;
      })
      .withTimeout(ANSWER_MS)
      .cacheFor(KEEP_MS);
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

  private ask(sql: string): Promise<object[]> {
    return this.em.getConnection().execute<object[]>(sql);
  }
}

const ANSWER_MS = 2300;
const KEEP_MS = 500;
