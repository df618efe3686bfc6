import { Type } from '@mikro-orm/core';

/**
 * An id as Better-Auth shows it: a text, whatever the column is (text, uuid or integer).
 * `mapping.ts` puts the column's real type in.
 */
export class OpaqueId extends Type<string, string> {
  override convertToJSValue(value: unknown): string {
    return String(value);
  }

  override getColumnType(): string {
    return 'text';
  }

  override compareAsType(): string {
    return 'string';
  }
}
