import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { runProgram, UsageError } from './run-program.js';

type Statements = Record<string, string[]>;

/** What `createAccessControl(…).newRole(…)` of Better-Auth returns. */
interface Role {
  statements: Record<string, readonly string[]>;
  authorize: (request: object) => unknown;
}

/**
 * Finds the exported roles. In an exported object of roles, such as the one for `admin({ roles })`,
 * the keys are the names. Any other exported role has the name of its export.
 */
function findRoles(exported: Record<string, unknown>): Record<string, Statements> {
  const groups = Object.values(exported).filter((value) => isObject(value) && !isRole(value));
  const named = groups.flatMap((group) => rolesAmong(group as object));
  const known = new Set(named.map(([, role]) => role));
  const others = rolesAmong(exported).filter(([, role]) => !known.has(role));
  return Object.fromEntries(
    [...named, ...others].map(([name, role]) => [name, statementsOf(role)]),
  );
}

function rolesAmong(values: object): [name: string, role: Role][] {
  return Object.entries(values).filter((entry): entry is [string, Role] => isRole(entry[1]));
}

function statementsOf({ statements }: Role): Statements {
  return Object.fromEntries(
    Object.entries(statements).map(([resource, actions]) => [resource, [...new Set(actions)]]),
  );
}

/** The access control itself has statements too, but no `authorize`. */
function isRole(value: unknown): value is Role {
  return (
    isObject(value) &&
    isObject((value as Partial<Role>).statements) &&
    typeof (value as Partial<Role>).authorize === 'function'
  );
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

async function importFile(path: string): Promise<Record<string, unknown>> {
  try {
    return (await import(pathToFileURL(resolve(path)).href)) as Record<string, unknown>;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UsageError(
      `Cannot import ${path}: ${reason}\nNode imports the file itself, so its imports need file extensions.`,
    );
  }
}

await runProgram(async () => {
  const [path] = process.argv.slice(2);
  if (path === undefined)
    throw new UsageError('Usage: npm run permissions -- path/to/permissions.ts');
  const roles = findRoles(await importFile(path));
  if (Object.keys(roles).length === 0) {
    throw new UsageError(`${path} exports no role of createAccessControl(…).newRole(…).`);
  }
  // The file may have opened a database connection, which would keep the process alive.
  process.stdout.write(`${JSON.stringify(roles, null, 2)}\n`, () => process.exit());
});
