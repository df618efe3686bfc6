import { setTimeout as sleep } from 'node:timers/promises';
import { EntityManager } from '@mikro-orm/postgresql';
import { Injectable } from '@nestjs/common';
import { Environment } from '../config/environment.js';

/**
 * One transaction for everything that a change consists of. Two requests that get in each other's way
 * (deadlock, serialization failure, a lock that is not to be had) are no error of either: the whole
 * work is done again, a little later and on entities read anew.
 */
@Injectable()
export class UnitOfWork {
  constructor(
    private readonly em: EntityManager,
    private readonly environment: Environment,
  ) {}

  async run<Result>(work: (em: EntityManager) => Promise<Result>): Promise<Result> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.attempt(work);
      } catch (error) {
        if (attempt === MOST_ATTEMPTS || !isCollision(error)) throw error;
        await sleep(Math.random() * attempt * 50);
      }
    }
  }

  private attempt<Result>(work: (em: EntityManager) => Promise<Result>): Promise<Result> {
    return this.em.fork().transactional(async (em) => {
      // Inside the transaction, so that it works behind a pooler and ends with it.
      await em
        .getConnection()
        .execute(
          `select set_config('statement_timeout', ?, true), set_config('lock_timeout', ?, true)`,
          [String(this.environment.DATABASE_STATEMENT_TIMEOUT_MS), String(LOCK_MS)],
          'all',
          em.getTransactionContext(),
        );
      return work(em);
    });
  }
}

const MOST_ATTEMPTS = 4;
const LOCK_MS = 1000;

/** Deadlock, serialization failure, lock not available. */
export function isCollision(error: unknown): boolean {
  return (
    error instanceof Error && 'code' in error && /^(40P01|40001|55P03)$/.test(String(error.code))
  );
}
