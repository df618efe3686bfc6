import { readFileSync } from 'node:fs';
import type { Environment } from './environment.js';
import { repeatedNames } from './repeated-names.js';
import type { RolePermissions, Statements } from './role-permissions.js';

export interface PermissionsFile {
  /** Undefined without a file. Use it only if there are no faults. */
  permissions?: RolePermissions;
  /** Every fault, with its place in the file. */
  faults: string[];
}

/**
 * Reads the JSON file of permissions: actions by resource by role. Any resource and any action is
 * allowed, because an application can define its own.
 */
export function readPermissionsFile({
  PERMISSIONS_FILE: path,
  ROLES,
}: Pick<Environment, 'PERMISSIONS_FILE' | 'ROLES'>): PermissionsFile {
  if (path === undefined) return { faults: [] };
  try {
    return parsePermissions(readFileSync(path, 'utf8'), ROLES);
  } catch (error) {
    const { code = 'unknown error' } = error as NodeJS.ErrnoException;
    return failed(`cannot be read: ${READ_ERRORS[code] ?? code}`);
  }
}

/** `roles` lists the known roles. */
export function parsePermissions(text: string, roles: readonly string[]): PermissionsFile {
  let value: unknown;
  // Some editors write a byte order mark, which is not JSON.
  const json = text.replace(/^\uFEFF/, '');
  try {
    value = JSON.parse(json);
  } catch (error) {
    return failed(`is not valid JSON${placeOf(json, error as SyntaxError)}`);
  }
  if (!isRecord(value)) return failed('must be an object with roles');
  const entries = Object.entries(value);
  if (entries.length === 0) return failed('must have at least one role');
  const faults = [...repeatedNames(json)].map((path) => `${placeIn(path)}: is repeated`);
  const permissions = new Map(
    entries.map(([role, statements]): [string, Statements] => {
      const place = placeIn([role]);
      if (!roles.includes(role)) faults.push(`${place}: ROLES does not list this role`);
      return [role, statementsOf(statements, place, faults)];
    }),
  );
  return { permissions, faults };
}

function statementsOf(value: unknown, place: string, faults: string[]): Statements {
  if (!isRecord(value)) {
    faults.push(`${place}: must be an object with resources`);
    return new Map();
  }
  return new Map(
    Object.entries(value).map(([resource, actions]): [string, ReadonlySet<string>] => {
      const inner = `${place}.${JSON.stringify(resource)}`;
      if (!isName(resource)) faults.push(`${inner}: must be the name of a resource`);
      return [resource, actionsOf(actions, inner, faults)];
    }),
  );
}

function placeIn(path: string[]): string {
  return path.map((name) => JSON.stringify(name)).join('.');
}

/** An empty list allows nothing. Better-Auth's own role `user` has such lists. */
function actionsOf(value: unknown, place: string, faults: string[]): ReadonlySet<string> {
  if (!Array.isArray(value)) {
    faults.push(`${place}: must be a list of actions`);
    return new Set();
  }
  const actions = new Set<string>();
  for (const [index, action] of (value as unknown[]).entries()) {
    const inner = `${place}[${index}]`;
    if (!isName(action)) faults.push(`${inner}: must be the name of an action`);
    else if (actions.has(action)) faults.push(`${inner}: is repeated`);
    else actions.add(action);
  }
  return actions;
}

/** No request could match a name with a blank or a control character. */
function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[^\s\p{Cc}]{1,100}$/u.test(value);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function failed(fault: string): PermissionsFile {
  return { faults: [fault] };
}

/** V8's message quotes the text, which can be a secret if the variable names a wrong file. */
function placeOf(text: string, { message }: SyntaxError): string {
  const [place] = /\(line \d+ column \d+\)/.exec(message) ?? [];
  if (place !== undefined) return ` ${place}`;
  if (!UNEXPECTED_TOKEN.test(message)) return ': it ends too early';
  const lines = text.slice(0, lengthUntilError(text)).split('\n');
  return ` (line ${lines.length} column ${lines.at(-1)?.length})`;
}

const UNEXPECTED_TOKEN = /^Unexpected token/;

/** V8 does not name the place of an unexpected token. This searches the shortest text with it. */
function lengthUntilError(text: string): number {
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (hasUnexpectedToken(text.slice(0, middle))) high = middle;
    else low = middle + 1;
  }
  return low;
}

function hasUnexpectedToken(text: string): boolean {
  try {
    JSON.parse(text);
    return false;
  } catch (error) {
    return UNEXPECTED_TOKEN.test((error as SyntaxError).message);
  }
}

const READ_ERRORS: Record<string, string> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EISDIR: 'it is a folder',
  EACCES: 'permission denied',
};
