/**
 * Better-Auth's tables as they are in this database. Better-Auth's three schema generators differ:
 * camelCase or snake_case; singular or plural; text, uuid or integer ids; timestamps with or
 * without a time zone. Gatehouse therefore inspects the database before it maps the entities.
 */
export interface PhysicalSchema {
  /** The PostgreSQL schema that the tables are in. */
  schema: string;
  tables: Partial<Record<TableName, PhysicalTable>>;
  /** Every schema of the database except PostgreSQL's own. */
  schemas: string[];
  /**
   * Other schemas with such tables, if DATABASE_SCHEMA is unset and the default schema has none.
   */
  elsewhere: string[];
  /** Why Gatehouse cannot run on this database. Empty if it can. */
  errors: string[];
  /** Facts for the operator that do not stop Gatehouse. */
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
  /** In the format of PostgreSQL's `format_type`: `text`, `uuid`, `timestamp with time zone`, … */
  type: string;
}

export interface InspectionOptions {
  /** Undefined: the first schema of the connection's search_path, without `gatehouse`. */
  schema: string | undefined;
  columns: 'auto' | 'camel' | 'snake';
  /** False if sessions are not in PostgreSQL (`SESSION_BINDING=token-only`). */
  requireSessions: boolean;
}

/** Runs one statement. Migrations, the doctor and the start use different connections. */
export type Query = (sql: string) => Promise<object[]>;

export type Kind = 'id' | 'text' | 'time' | 'flag';
export const TABLE_NAMES = ['user', 'session', 'account', 'verification'] as const;
export type TableName = (typeof TABLE_NAMES)[number];

/** The properties that Gatehouse reads or writes, with the required kind of column. */
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

/** True if no Better-Auth table exists. Migrations may create them in such a database. */
export function isNew({ tables, elsewhere }: PhysicalSchema): boolean {
  return Object.keys(tables).length === 0 && elsewhere.length === 0;
}

/**
 * Whether a text is a valid id for the column type. For an invalid uuid or integer, PostgreSQL
 * returns an error, although for the caller no such row exists.
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
