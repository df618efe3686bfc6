import { jest } from '@jest/globals';
import { EntityManager } from '@mikro-orm/postgresql';
import type { Stack } from './stack.js';

/** Sends a request, and returns the plans of its queries whose SQL matches. */
export async function plansOf(
  { gatehouse }: Stack,
  matching: RegExp,
  send: () => Promise<{ status: number }>,
): Promise<string[]> {
  const connection = gatehouse.app.get(EntityManager).getConnection();
  const execute = jest.spyOn(connection, 'execute');
  try {
    expect((await send()).status).toBe(200);
    const queries = execute.mock.calls.filter(([sql]) => matching.test(sql as string));
    const plans: string[] = [];
    for (const [sql, parameters] of queries) {
      const rows = await connection.execute<{ 'QUERY PLAN': string }[]>(
        `explain ${sql as string}`,
        parameters,
      );
      plans.push(rows.map((row) => row['QUERY PLAN']).join('\n'));
    }
    return plans;
  } finally {
    execute.mockRestore();
  }
}
