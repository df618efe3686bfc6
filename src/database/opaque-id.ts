import { type Platform, type TransformContext, Type } from '@mikro-orm/core';
import { canBeId } from './physical-schema.js';

/**
 * An id as Better-Auth shows it: a text, whatever the column is (text, uuid or integer).
 * `mapping.ts` puts the column's real type in.
 *
 * A text that cannot be an id in this database finds nothing, where PostgreSQL would answer with an
 * error: in a condition, an id that nobody has takes its place.
 */
export class OpaqueId extends Type<string, string> {
  constructor(private readonly columnType = 'text') {
    super();
  }

  override convertToJSValue(value: unknown): string {
    return String(value);
  }

  override convertToDatabaseValue(
    value: string,
    _platform: Platform,
    context?: TransformContext,
  ): string {
    if (context?.mode !== 'query' || typeof value !== 'string') return value;
    return canBeId(this.columnType, value) ? value : unmatchableId(this.columnType);
  }

  override getColumnType(): string {
    return this.columnType;
  }

  override compareAsType(): string {
    return 'string';
  }
}

/** Not null: `is null` would find rows where such a column may be empty. */
function unmatchableId(type: string): string {
  if (type === 'uuid') return 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  if (type === 'integer' || type === 'bigint') return '-1';
  return '';
}
