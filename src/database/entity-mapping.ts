import { type EntityMetadata, ReferenceKind } from '@mikro-orm/core';
import { OpaqueId } from './opaque-id.js';
import { EXPECTED, type PhysicalSchema, type TableName } from './physical-schema.js';

const TABLE_OF: Record<string, TableName> = {
  User: 'user',
  Session: 'session',
  Account: 'account',
  Verification: 'verification',
};

/** Maps a Better-Auth entity to the table, column names and column types of this database. */
export function mapToPhysical(meta: EntityMetadata, physical: PhysicalSchema): void {
  const logical = TABLE_OF[meta.className];
  const table = logical && physical.tables[logical];
  if (!logical || !table) return;

  meta.tableName = table.name;
  meta.schema = physical.schema;
  for (const property of Object.values(meta.properties)) {
    const name = property.name === 'user' ? 'userId' : property.name;
    const column = name in EXPECTED[logical] ? table.columns[name] : undefined;
    if (!column) continue;
    property.fieldNames = [column.name];
    property.joinColumns = [column.name];
    // A relation without a column type takes the type of the id that it references.
    if (property.kind === ReferenceKind.SCALAR) property.columnTypes = [column.type];
    if (property.primary) Object.assign(property, { type: new OpaqueId(column.type) });
  }
}

/** Puts an entity of an extension into the schema of the extensions. */
export function placeInSchema(meta: EntityMetadata, schema: string): void {
  meta.schema ??= schema;
  if (meta.schema === schema) return;
  throw new Error(
    `Entity ${meta.className} is in schema "${meta.schema}". Entities of your own are in schema "${schema}" (src/extensions.ts).`,
  );
}
