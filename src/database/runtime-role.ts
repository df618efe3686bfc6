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
  /** The schema of the entities of extensions, if there are any. */
  ownSchema?: string,
): Promise<void> {
  await requireRestricted(client, role);
  const name = escapeIdentifier(role);
  const statements = [
    ...grants(name, physical),
    ...(ownSchema === undefined ? [] : ownGrants(name, escapeIdentifier(ownSchema))),
  ];
  await client.query('begin');
  for (const statement of statements) await client.query(statement);
  await client.query('commit');
}

function grants(role: string, { schema, tables }: PhysicalSchema): string[] {
  const columns = (
    table: TableName,
    properties: readonly string[] = Object.keys(EXPECTED[table]),
  ) =>
    properties
      .filter((property) => property !== 'token')
      .flatMap((property) => tables[table]?.columns[property]?.name ?? [])
      .map(escapeIdentifier)
      .join(', ');
  // An earlier release or an operator may have granted more.
  const onTable = (table: TableName, rights: string) => {
    const found = tables[table];
    if (!found) return [];
    const name = `${escapeIdentifier(schema)}.${escapeIdentifier(found.name)}`;
    return [`revoke all on ${name} from ${role}`, `grant ${rights} on ${name} to ${role}`];
  };
  return [
    `grant usage on schema ${escapeIdentifier(schema)}, gatehouse to ${role}`,
    `revoke all on all tables in schema gatehouse from ${role}`,
    `grant select on gatehouse.migration to ${role}`,
    `grant select, insert on gatehouse.audit_event to ${role}`,
    `grant select, insert, delete on gatehouse.change to ${role}`,
    // Without the columns for session tokens, passwords and provider tokens.
    ...onTable('user', `select (${columns('user')}), update (${columns('user', UPDATED_COLUMNS)})`),
    ...onTable('session', `select (${columns('session')}), delete`),
    ...onTable('account', `select (${columns('account')})`),
  ];
}

function ownGrants(role: string, schema: string): string[] {
  return [
    `grant usage on schema ${schema} to ${role}`,
    `grant select, insert, update, delete on all tables in schema ${schema} to ${role}`,
    `grant usage on all sequences in schema ${schema} to ${role}`,
  ];
}

const UPDATED_COLUMNS = ['name', 'image', 'role', 'banned', 'banReason', 'banExpires', 'updatedAt'];

/**
 * Grants do not restrict a superuser or an owner, nor a member of such a role, which may become it.
 * With files or programs of the server, a role can change the tables as well.
 */
async function requireRestricted(client: Client, role: string): Promise<void> {
  const { rows } = await client.query<{ powerful: boolean; owner: boolean }>(
    `select exists (
         select from pg_roles m where pg_has_role(r.oid, m.oid, 'member') and (
           m.rolsuper or m.rolcreaterole
           or m.rolname in ('pg_write_server_files', 'pg_execute_server_program'))
       ) as powerful,
       exists (
         select from (
           select relowner from pg_class where oid = 'gatehouse.audit_event'::regclass
           union select nspowner from pg_namespace where nspname = 'gatehouse'
           union select proowner from pg_proc where oid = 'gatehouse.refuse_change()'::regprocedure
           union select datdba from pg_database where datname = current_database()
         ) owners (id) where pg_has_role(r.oid, owners.id, 'member')
       ) as owner
     from pg_roles r where r.rolname = $1`,
    [role],
  );
  const [found] = rows;
  if (!found) {
    throw new UnusableDatabaseError(
      `There is no role "${role}" (DATABASE_RUNTIME_ROLE). Create it before you run the migrations.`,
    );
  }
  if (!found.powerful && !found.owner) return;
  const rights = found.powerful
    ? 'is a superuser, or may create roles, write files of the server or run programs on it'
    : 'owns the audit table, its schema, its function or the database';
  throw new UnusableDatabaseError(
    `The role "${role}" (DATABASE_RUNTIME_ROLE), or a role of which it is a member, ${rights}, so it could change audit events. Name another role.`,
  );
}
