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

/** Grants do not restrict a superuser, an owner, or a member of one of them. */
async function requireRestricted(client: Client, role: string): Promise<void> {
  const { rows } = await client.query<{ superuser: boolean; owner: boolean }>(
    `select bool_or(m.rolsuper or m.rolcreaterole or m.rolname in
         ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')) as superuser,
       bool_or(m.oid in (
         select relowner from pg_class where oid = 'gatehouse.audit_event'::regclass
         union select nspowner from pg_namespace where nspname = 'gatehouse'
         union select proowner from pg_proc where oid = 'gatehouse.refuse_change'::regproc
         union select datdba from pg_database where datname = current_database())) as owner
     from pg_roles r join pg_roles m on pg_has_role(r.oid, m.oid, 'member')
     where r.rolname = $1 group by r.oid`,
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
