import { setTimeout as sleep } from 'node:timers/promises';
import { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import { requestReceivedAt } from './request-received-at.js';
import { unavailable } from '../problems/problem.js';
import { Environment } from '../config/environment.js';

/**
 * One transaction for everything that a change consists of. Two requests that get in each other's way
 * (deadlock, serialization failure, a lock that is not to be had) are no error of either: the whole
 * work is done again, a little later and on entities read anew.
 */
@Injectable()
export class TransactionRunner {
  constructor(
    private readonly em: EntityManager,
    private readonly environment: Environment,
  ) {}

  async run<Result>(work: (em: EntityManager) => Promise<Result>): Promise<Result> {
    // Who asks has waited for more than this: for their session to be looked up, for a place in the pool.
    const began = requestReceivedAt.getStore() ?? performance.now();
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.attempt(work, began);
      } catch (error) {
        const isLast = attempt === MAX_ATTEMPTS || performance.now() - began > RETRY_WINDOW_MS;
        if (isLast || !isRetryable(error)) throw error;
        await sleep(Math.random() * attempt * 50);
      }
    }
  }

  private attempt<Result>(
    work: (em: EntityManager) => Promise<Result>,
    began: number,
  ): Promise<Result> {
    return this.em.fork().transactional(async (em) => {
      // Inside the transaction, so that it works behind a pooler and ends with it.
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
      // The caller may have been told by now that it took too long, and that must not turn out untrue.
      if (performance.now() - began > COMMIT_DEADLINE_MS)
        throw unavailable('The change took too long.');
      return result;
    });
  }
}

const MAX_ATTEMPTS = 4;
const LOCK_TIMEOUT_MS = 1000;
/** Both well before the deadline of the answer (`ANSWER_MS` in `in-flight.ts`). */
const RETRY_WINDOW_MS = 1200;
const COMMIT_DEADLINE_MS = 2000;

/** Deadlock, serialization failure, lock not available. */
export function isRetryable(error: unknown): boolean {
  return (
    error instanceof Error && 'code' in error && /^(40P01|40001|55P03)$/.test(String(error.code))
  );
}
