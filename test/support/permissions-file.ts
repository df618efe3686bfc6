import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type TestRoles = Record<string, Record<string, string[]>>;

/** Writes a file of permissions. Returns the variables that make Gatehouse use it. */
export function writePermissions(roles: TestRoles): { ROLES: string; PERMISSIONS_FILE: string } {
  const path = join(mkdtempSync(join(tmpdir(), 'gatehouse-permissions-')), 'permissions.json');
  writeFileSync(path, JSON.stringify(roles));
  const names = new Set(['user', 'admin', ...Object.keys(roles)]);
  return { ROLES: [...names].join(','), PERMISSIONS_FILE: path };
}
