import type { Query } from './physical-schema.js';

/**
 * The names of the migrations that this release contains and that the database has not recorded.
 */
export async function pendingMigrations(
  released: readonly string[],
  query: Query,
): Promise<string[]> {
  const applied = new Set(
    (await appliedRows(query)).map((row) => ('name' in row ? row.name : undefined)),
  );
  return released.filter((name) => !applied.has(name));
}

async function appliedRows(query: Query): Promise<object[]> {
  try {
    return await query('select name from gatehouse.migration');
  } catch (error) {
    // 42P01: the table does not exist, because no migration has run yet.
    if (error instanceof Error && 'code' in error && error.code === '42P01') return [];
    throw error;
  }
}
