import { readFileSync } from 'node:fs';
import type { ServerOptions } from '../../tools/better-auth-server.ts';

/** One real layout of Better-Auth's tables. */
export interface TableLayout {
  name: string;
  ddl: string;
  /** The options of a Better-Auth server that uses these tables. */
  issuer: Partial<ServerOptions>;
  /** The schema of the tables, if it is not `public`. */
  schema?: string;
  /** The table of users, quoted. */
  users: string;
  idType: 'text' | 'uuid' | 'integer';
}

/** Reads the tables that a version of Better-Auth, Prisma or Drizzle created. */
export const readDdl = (name: string): string =>
  readFileSync(new URL(`../schemas/${name}.sql`, import.meta.url), 'utf8');

const KYSELY = readDdl('kysely-1.7.24-full');
const DRIZZLE = readDdl('drizzle-1.7.7-full');
const PUBLIC = { issuer: {}, users: 'public."user"', idType: 'text' } as const;

export const TABLE_LAYOUTS: TableLayout[] = [
  {
    ...PUBLIC,
    name: "Better-Auth's own migrator",
    ddl: readDdl('kysely-1.7.24-admin-jwt-bearer'),
  },
  {
    ...PUBLIC,
    name: "Better-Auth's own migrator, with the tables of many plugins",
    ddl: KYSELY,
  },
  {
    ...PUBLIC,
    name: "Better-Auth's own migrator, uuid ids",
    ddl: readDdl('kysely-1.7.24-uuid'),
    issuer: { idType: 'uuid' },
    idType: 'uuid',
  },
  {
    ...PUBLIC,
    name: "Better-Auth's own migrator, integer ids",
    ddl: readDdl('kysely-1.7.24-serial'),
    issuer: { idType: 'serial' },
    idType: 'integer',
  },
  { ...PUBLIC, name: 'Prisma', ddl: readDdl('prisma-1.7.7-full') },
  { ...PUBLIC, name: 'Drizzle', ddl: DRIZZLE, issuer: { columns: 'snake' } },
  {
    ...PUBLIC,
    name: 'Drizzle, plural',
    ddl: DRIZZLE.replace(/"(user|session|account|verification|jwks)"/g, '"$1s"'),
    issuer: { columns: 'snake', plural: true },
    users: 'public.users',
  },
  {
    ...PUBLIC,
    name: 'tables in a separate schema',
    ddl: `create schema "Sign in"; ${KYSELY.replaceAll('public.', '"Sign in".')}`,
    issuer: { schema: 'Sign in' },
    schema: 'Sign in',
    users: '"Sign in"."user"',
  },
];
