/** A part of an SQL statement, and the parameters for its question marks. */
export interface SqlFragment {
  sql: string;
  parameters: readonly unknown[];
}

export function fragment(sql: string, ...parameters: unknown[]): SqlFragment {
  return { sql, parameters };
}

export function join(fragments: SqlFragment[], separator: string): SqlFragment {
  return {
    sql: fragments.map(({ sql }) => sql).join(separator),
    parameters: fragments.flatMap(({ parameters }) => parameters),
  };
}

export function allOf(conditions: SqlFragment[]): SqlFragment {
  return conditions.length === 0 ? fragment('true') : join(conditions, ' and ');
}
