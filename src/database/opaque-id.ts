import { Type } from '@mikro-orm/core';
import { canBeId } from './physical-schema.js';

/**
 * An id as Better-Auth shows it: a text, whatever the column is. A text that could not be in the column
 * (`abc` where ids are integers) is asked for as NULL, which no row equals: PostgreSQL would answer it
 * with an error, where the caller only wants to hear that there is no such row.
 */
export class OpaqueId extends Type<string, string | null> {
  constructor(private readonly columnType = 'text') {
    super();
  }

  override convertToDatabaseValue(value: string): string | null {
    return canBeId(this.columnType, value) ? value : null;
  }

  override convertToJSValue(value: unknown): string {
    return String(value);
  }

  override getColumnType(): string {
    return this.columnType;
  }

  override compareAsType(): string {
    return 'string';
  }
}
