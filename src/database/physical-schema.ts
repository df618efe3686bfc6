/**
 * Better-Auth's tables as they really are in this database. Its three generators write them in three
 * ways (camelCase or snake_case, plural or not, text, uuid or integer ids, timestamps with or without
 * a zone), so Gatehouse looks before it maps.
 */
export interface PhysicalSchema {
  /** The PostgreSQL schema that the tables are in. */
  schema: string;
  tables: Partial<Record<TableName, PhysicalTable>>;
  /** Every schema of the database but PostgreSQL's own. */
  schemas: string[];
  /** Where they are instead, when nobody said which schema to look in and this one has none of them. */
  elsewhere: string[];
  /** Why Gatehouse could not run on this database; empty when it can. */
  errors: string[];
  /** What a person may want to know, but nothing waits for. */
  warnings: string[];
}

/** `@Inject(PHYSICAL_SCHEMA)`: the schema that Gatehouse found when it started. */
export const PHYSICAL_SCHEMA = Symbol('PHYSICAL_SCHEMA');

export interface PhysicalTable {
  name: string;
  columns: Record<string, PhysicalColumn>;
}

export interface PhysicalColumn {
  name: string;
  /** As PostgreSQL's `format_type` has it: `text`, `uuid`, `timestamp with time zone`, … */
  type: string;
}

export interface InspectionOptions {
  /** The schema to look in; the first of the connection's search_path, but for our own, when undefined. */
  schema: string | undefined;
  columns: 'auto' | 'camel' | 'snake';
  /** False where sessions live outside PostgreSQL (`SESSION_BINDING=token-only`). */
  requireSessions: boolean;
}

/** What is needed of a database connection here, so that migrations, the doctor and the start can share it. */
export type Query = (sql: string) => Promise<object[]>;

export type Kind = 'id' | 'text' | 'time' | 'flag';
export const TABLE_NAMES = ['user', 'session', 'account', 'verification'] as const;
export type TableName = (typeof TABLE_NAMES)[number];

/** The properties that Gatehouse reads or writes, and what kind of column each must be. */
export const EXPECTED = {
  user: {
    id: 'id',
    name: 'text',
    email: 'text',
    emailVerified: 'flag',
    image: 'text',
    createdAt: 'time',
    updatedAt: 'time',
    role: 'text',
    banned: 'flag',
    banReason: 'text',
    banExpires: 'time',
  },
  session: {
    id: 'id',
    userId: 'id',
    expiresAt: 'time',
    token: 'text',
    createdAt: 'time',
    updatedAt: 'time',
    ipAddress: 'text',
    userAgent: 'text',
    impersonatedBy: 'text',
  },
  account: {
    id: 'id',
    userId: 'id',
    accountId: 'text',
    providerId: 'text',
    scope: 'text',
    createdAt: 'time',
    updatedAt: 'time',
  },
  verification: {
    id: 'id',
    identifier: 'text',
    value: 'text',
    expiresAt: 'time',
    createdAt: 'time',
    updatedAt: 'time',
  },
} as const satisfies Record<TableName, Record<string, Kind>>;

/** True when not one of Better-Auth's tables is there: a new database, in which we may create them. */
export function isNew({ tables, elsewhere }: PhysicalSchema): boolean {
  return Object.keys(tables).length === 0 && elsewhere.length === 0;
}

/**
 * Whether a text could be an id in this database at all. PostgreSQL answers a text that is no uuid or
 * no integer with an error, where the caller only wants to hear "there is no such row".
 */
export function canBeId(type: string, text: string): boolean {
  if (type === 'uuid') return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
  if (type === 'integer') return /^[1-9]\d{0,9}$/.test(text) && Number(text) <= 2_147_483_647;
  if (type === 'bigint') {
    return /^[1-9]\d{0,18}$/.test(text) && BigInt(text) <= 9_223_372_036_854_775_807n;
  }
  return text.length > 0 && text.length <= 255 && !text.includes('\0');
}

export function snakeCase(property: string): string {
  return property.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
