import { type Platform, type TransformContext, Type } from '@mikro-orm/core';
import { canBeId } from './physical-schema.js';

/**
 * An id as Better-Auth shows it: a string, whatever the column type is (text, uuid or integer).
 * `entity-mapping.ts` sets the real column type.
 *
 * PostgreSQL returns an error for a text that is not valid for the column type. In a condition,
 * such a text is therefore replaced by an id that matches no row.
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

/** Not null: `is null` would match rows in which the column is empty. */
function unmatchableId(type: string): string {
  if (type === 'uuid') return 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  if (type === 'integer' || type === 'bigint') return '-1';
  return '';
}
