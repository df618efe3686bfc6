import { type Client, escapeIdentifier } from 'pg';
import { UnusableDatabaseError } from './connection.js';
import { EXPECTED, type PhysicalSchema, type TableName } from './physical-schema.js';

/**
 * Grants the role of the running service the rights that it needs, and no others. The role cannot
 * change or delete an audit event, and cannot disable the trigger that prevents both.
 */
export async function grantToRuntimeRole(
  client: Client,
  role: string,
  physical: PhysicalSchema,
): Promise<void> {
  await requireRestricted(client, role);
  await client.query('begin');
  for (const statement of grants(escapeIdentifier(role), physical)) await client.query(statement);
  await client.query('commit');
}

function grants(role: string, { schema, tables }: PhysicalSchema): string[] {
  const columns = (table: TableName, properties: readonly string[]) =>
    properties
      .flatMap((property) => tables[table]?.columns[property]?.name ?? [])
      .map(escapeIdentifier)
      .join(', ');
  const onTable = (table: TableName, rights: (name: string) => string[]) => {
    const name = tables[table]?.name;
    return name === undefined
      ? []
      : rights(`${escapeIdentifier(schema)}.${escapeIdentifier(name)}`);
  };
  return [
    `grant usage on schema ${escapeIdentifier(schema)}, gatehouse to ${role}`,
    `revoke all on all tables in schema gatehouse from ${role}`,
    `grant select on gatehouse.migration to ${role}`,
    `grant select, insert on gatehouse.audit_event to ${role}`,
    ...onTable('user', (name) => [
      `grant select, update (${columns('user', UPDATED_COLUMNS)}) on ${name} to ${role}`,
    ]),
    ...onTable('session', (name) => [`grant select, delete on ${name} to ${role}`]),
    // Without the columns for passwords and provider tokens.
    ...onTable('account', (name) => [
      `grant select (${columns('account', Object.keys(EXPECTED.account))}) on ${name} to ${role}`,
    ]),
  ];
}

const UPDATED_COLUMNS = ['name', 'image', 'role', 'banned', 'banReason', 'banExpires', 'updatedAt'];

/** Grants do not restrict a superuser or the owner of a table. */
async function requireRestricted(client: Client, role: string): Promise<void> {
  const { rows } = await client.query<{ superuser: boolean; owner: boolean }>(
    `select r.rolsuper or r.rolcreaterole as superuser,
       pg_has_role(r.oid, c.relowner, 'member') or pg_has_role(r.oid, n.nspowner, 'member') as owner
     from pg_roles r, pg_class c join pg_namespace n on n.oid = c.relnamespace
     where r.rolname = $1 and c.oid = 'gatehouse.audit_event'::regclass`,
    [role],
  );
  const [found] = rows;
  if (!found) {
    throw new UnusableDatabaseError(
      `There is no role "${role}" (DATABASE_RUNTIME_ROLE). Create it before you run the migrations.`,
    );
  }
  if (!found.superuser && !found.owner) return;
  throw new UnusableDatabaseError(
    `The role "${role}" (DATABASE_RUNTIME_ROLE) ${found.superuser ? 'is a superuser or may create roles' : 'owns the audit table'}, so it could change audit events. Name another role.`,
  );
}
