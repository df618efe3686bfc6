import { MIGRATIONS } from '../../mikro-orm.config.js';

/** The names of the migrations that this build has and the database has not. */
export async function pendingMigrations(
  query: (sql: string) => Promise<object[]>,
): Promise<string[]> {
  const applied = new Set(
    (await appliedRows(query)).map((row) => ('name' in row ? row.name : undefined)),
  );
  return MIGRATIONS.map(({ name }) => name).filter((name) => !applied.has(name));
}

async function appliedRows(query: (sql: string) => Promise<object[]>): Promise<object[]> {
  try {
    return await query('select name from gatehouse.migration');
  } catch (error) {
    // 42P01: there is no such table, because no migration has ever run here.
    if (error instanceof Error && 'code' in error && error.code === '42P01') return [];
    throw error;
  }
}
