import { Migration } from '@mikro-orm/migrations';
import { inspectDatabase } from '../src/database/inspect.js';

/**
 * A ban or a demotion revokes the sessions in which the user impersonates others. Without this
 * index, PostgreSQL would read the whole session table. Ordinary sign-ins do not change this
 * partial index.
 */
export class ImpersonationIndex extends Migration {
  override isTransactional(): boolean {
    return false;
  }

  override async up(): Promise<void> {
    const { schema, tables } = await this.physical();
    const column = tables.session?.columns['impersonatedBy'];
    if (!tables.session || !column) return;
    // An interrupted build leaves an unusable index, which `if not exists` would keep.
    await this.drop(schema);
    await this.execute(`create index concurrently ${INDEX} on "${schema}"."${tables.session.name}"
      ("${column.name}") where "${column.name}" is not null`);
  }

  override async down(): Promise<void> {
    await this.drop((await this.physical()).schema);
  }

  private async drop(schema: string): Promise<void> {
    await this.execute(`drop index concurrently if exists "${schema}".${INDEX}`);
  }

  private physical() {
    return inspectDatabase((sql) => this.execute(sql), {
      schema: this.config.get('schema'),
      columns: 'auto',
      requireSessions: false,
    });
  }
}

const INDEX = 'gatehouse_session_impersonated_by_idx';
