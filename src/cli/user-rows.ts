import type { Client } from 'pg';
import type { Environment } from '../config/environment.js';
import { DEFAULT_ROLE } from '../config/role-permissions.js';
import { MAX_CHARACTERS } from '../database/bounded-text.js';
import type { PhysicalSchema } from '../database/physical-schema.js';

/**
 * Finds users with a long name or picture. Better-Auth puts these texts into each token. PostgreSQL
 * returns their length without reading them. The check still reads every row, so it has a timeout.
 */
export async function oversizedUsers(
  client: Client,
  { schema, tables }: PhysicalSchema,
): Promise<string[]> {
  const { name, image } = tables.user?.columns ?? {};
  if (!name || !image) return [];
  const [names, images] = [name, image].map((column) => `octet_length("${column.name}")`);
  const rows = await readQuickly<{ users: number; largest: number }>(
    client,
    `select count(*)::int as users, max(size)::float8 as largest from (
       select coalesce(${names}, 0)::bigint + coalesce(${images}, 0) as size
       from "${schema}"."${tables.user?.name}"
     ) sizes where size > ${MAX_PROFILE_BYTES}`,
  );
  if (!rows)
    return ['Skipped the check for oversized names and pictures: the user table is too large.'];
  const { users = 0, largest = 0 } = rows[0] ?? {};
  if (users === 0) return [];
  return [
    `The name and the picture of ${users} users have more than ${MAX_PROFILE_BYTES} bytes (the largest: ${largest}). Gatehouse shows ${MAX_CHARACTERS.name} and ${MAX_CHARACTERS.image} characters of them, and rejects tokens of more than 8 KB. Store pictures elsewhere, and only their URL here.`,
  ];
}

/** Roles are defined in the code of the auth server, so the file can lack one that is in use. */
export async function rolesWithoutPermissions(
  client: Client,
  { schema, tables }: PhysicalSchema,
  { permissions }: Environment,
): Promise<string[]> {
  const column = tables.user?.columns['role'];
  if (!permissions || !column) return [];
  const rows = await readQuickly<{ role: string; users: number }>(
    client,
    `select role, count(*)::int as users
     from (select unnest(string_to_array("${column.name}", ',')) as role
           from "${schema}"."${tables.user?.name}") roles
     group by role order by role`,
  );
  if (!rows) {
    return ['Skipped the check for roles without permissions: the user table is too large.'];
  }
  return (
    rows
      // Every new user has the default role, and needs no permissions.
      .filter(({ role }) => role !== DEFAULT_ROLE && !permissions.has(role))
      .slice(0, MAX_LISTED_ROLES)
      .map(({ role, users }) => {
        const name = JSON.stringify(role.slice(0, 100));
        return `PERMISSIONS_FILE lacks the role ${name}, so it gives no permissions. Users who have it: ${users}.`;
      })
  );
}

const MAX_LISTED_ROLES = 100;

/** Returns undefined if the query takes too long. */
async function readQuickly<Row extends object>(
  client: Client,
  sql: string,
): Promise<Row[] | undefined> {
  try {
    await client.query('begin read only');
    await client.query(`set local statement_timeout = ${CHECK_TIMEOUT_MS}`);
    return (await client.query<Row>(sql)).rows;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === QUERY_CANCELED)) throw error;
    return undefined;
  } finally {
    await client.query('rollback');
  }
}

const CHECK_TIMEOUT_MS = 5000;
const MAX_PROFILE_BYTES = 4096;
const QUERY_CANCELED = '57014';
