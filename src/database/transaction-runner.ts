import { setTimeout as sleep } from 'node:timers/promises';
import { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import { currentRequest, RESPONSE_DEADLINE_MS } from './current-request.js';
import { unavailable } from '../problems/problem.js';
import { Environment } from '../config/environment.js';
import { inSpan } from '../tracing/tracing.js';

/**
 * Runs a change in one transaction. If two requests conflict (deadlock, serialization failure, lock
 * timeout), it runs the whole callback again after a short delay, on entities that it reads again.
 */
@Injectable()
export class TransactionRunner {
  constructor(
    private readonly em: EntityManager,
    private readonly environment: Environment,
  ) {}

  /** Runs `work` in a transaction, and retries it after a conflict. */
  async run<Result>(work: (em: EntityManager) => Promise<Result>): Promise<Result> {
    // The client has waited longer: for its session lookup and for a connection of the pool.
    const deadline =
      currentRequest.getStore()?.deadline ?? performance.now() + RESPONSE_DEADLINE_MS;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await inSpan('transaction', () => this.attempt(work, deadline));
      } catch (error) {
        const isLast = attempt === MAX_ATTEMPTS || performance.now() > deadline - RETRY_MARGIN_MS;
        if (isLast || !isRetryable(error)) throw error;
        await sleep(Math.random() * attempt * 50);
      }
    }
  }

  private attempt<Result>(
    work: (em: EntityManager) => Promise<Result>,
    deadline: number,
  ): Promise<Result> {
    return this.em.fork().transactional(async (em) => {
      // Set inside the transaction: so it works behind a pooler and ends with the transaction.
      await em
        .getConnection()
        .execute(
          `select set_config('statement_timeout', ?, true), set_config('lock_timeout', ?, true)`,
          [String(this.environment.DATABASE_STATEMENT_TIMEOUT_MS), String(LOCK_TIMEOUT_MS)],
          'all',
          em.getTransactionContext(),
        );
      const result = await work(em);
      await em.flush();
      // The client may already have a timeout response, so this change must not commit any more.
      if (performance.now() > deadline - COMMIT_MARGIN_MS) {
        throw unavailable('The change took too long.');
      }
      return result;
    });
  }
}

const MAX_ATTEMPTS = 4;
const LOCK_TIMEOUT_MS = 1000;
/** How long before the deadline no attempt begins, and none commits. */
const RETRY_MARGIN_MS = 1000;
const COMMIT_MARGIN_MS = 200;

/** Whether an error is a deadlock, a serialization failure or a lock timeout. */
export function isRetryable(error: unknown): boolean {
  return (
    error instanceof Error && 'code' in error && /^(40P01|40001|55P03)$/.test(String(error.code))
  );
}
