import { Migration } from '@mikro-orm/migrations';
import { createTriggers, dropTriggers } from '../src/database/change-triggers.js';
import { inspectDatabase } from '../src/database/inspect.js';

/**
 * Triggers that record changed rows for every replica. Creating a trigger waits for writers and
 * blocks new ones, so it has a short lock timeout. The migration can be run again.
 */
export class ChangeFeedTriggers extends Migration {
  override async up(): Promise<void> {
    this.addSql(`set local lock_timeout = '5s'`);
    for (const statement of createTriggers(await this.physical())) this.addSql(statement);
  }

  override async down(): Promise<void> {
    this.addSql(`set local lock_timeout = '5s'`);
    for (const statement of dropTriggers(await this.physical())) this.addSql(statement);
  }

  private physical() {
    return inspectDatabase((sql) => this.execute(sql), {
      schema: this.config.get('schema'),
      columns: 'auto',
      requireSessions: false,
    });
  }
}
