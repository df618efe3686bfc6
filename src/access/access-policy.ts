import type { RolePermissions, Statements } from '../config/role-permissions.js';
import { type PermissionList, Permissions } from './permissions.js';
import type { UserRow } from './principal.js';
import { type AdminRule, rolesOf } from './user-rules.js';

export interface AccessRule extends AdminRule {
  /** The content of `PERMISSIONS_FILE`. Undefined without a file. */
  permissions?: RolePermissions;
}

/**
 * Answers what a user may do. With `PERMISSIONS_FILE`, each role allows what the file says. Without
 * it, the roles of `ADMIN_ROLES` allow everything and other roles nothing. The users in
 * `ADMIN_USER_IDS` may always do everything.
 */
export class AccessPolicy {
  /** The permissions of an impersonated session. */
  readonly none: Permissions;
  private readonly everything: Permissions;
  /** The permissions for each stored text of roles. There are few different texts. */
  private readonly byRole = new Map<string, Permissions>();
  private readonly resources: readonly string[];
  /** The statements of each role. Only admin roles have `admin role`. Undefined without a file. */
  private readonly statements: RolePermissions | undefined;

  constructor(private readonly rule: AccessRule) {
    this.statements = rule.permissions && markAdmins(rule.permissions, rule.ADMIN_ROLES);
    const all = unionOf([KNOWN, ...(rule.permissions?.values() ?? [])]);
    this.resources = [...all.keys()];
    this.everything = new Permissions(null, this.toList(all));
    this.none = this.ofRoles([]);
  }

  permissionsOf(user: Pick<UserRow, 'id' | 'role'>): Permissions {
    if (this.rule.ADMIN_USER_IDS.includes(user.id)) return this.everything;
    const text = user.role ?? '';
    const known = this.byRole.get(text);
    if (known) return known;
    const permissions = this.ofRoles(rolesOf(user));
    if (this.byRole.size >= MAX_TEXTS) this.byRole.clear();
    if (text.length <= MAX_TEXT_LENGTH) this.byRole.set(text, permissions);
    return permissions;
  }

  /** The permissions that these roles would give to a user. */
  ofRoles(roles: readonly string[]): Permissions {
    const { ADMIN_ROLES } = this.rule;
    if (this.statements === undefined) {
      const isAdmin = roles.some((role) => ADMIN_ROLES.includes(role));
      return isAdmin ? this.everything : new Permissions([], this.toList(new Map()));
    }
    const ofEach = roles.flatMap((role) => this.statements?.get(role) ?? []);
    return new Permissions(ofEach, this.toList(unionOf(ofEach)));
  }

  /**
   * Every known resource has a list, so that a page can read it without a check. The lists are not
   * frozen, because V8 needs three microseconds more to convert frozen lists to JSON. No decision
   * reads them.
   */
  private toList(statements: Statements): PermissionList {
    const lists = this.resources.map((resource): [string, readonly string[]] => [
      resource,
      [...(statements.get(resource) ?? [])],
    ]);
    return Object.fromEntries(lists);
  }
}

/** The statements of Better-Auth's admin plugin, and the resource of Gatehouse. */
const KNOWN: Statements = new Map(
  Object.entries({
    user: [
      'create',
      'list',
      'set-role',
      'ban',
      'impersonate',
      'impersonate-admins',
      'delete',
      'set-password',
      'set-email',
      'set-phone',
      'get',
      'update',
    ],
    session: ['list', 'revoke', 'delete'],
    audit: ['list', 'export'],
  }).map(([resource, actions]) => [resource, new Set(actions)]),
);

/** Bounds the memory, because Better-Auth does not restrict what it stores as a role. */
const MAX_TEXTS = 1000;
const MAX_TEXT_LENGTH = 255;

/**
 * `@Roles('admin')` allows routes that no statement names, and Better-Auth may allow an admin more.
 * So an admin role has one more permission, `admin role`. Without it, a user has fewer permissions
 * than an admin, even if the file gives the admin role few or none.
 */
function markAdmins(permissions: RolePermissions, adminRoles: readonly string[]): RolePermissions {
  const marked = adminRoles.map((role): [string, Statements] => [
    role,
    new Map([...(permissions.get(role) ?? []), ['admin role', new Set(['have'])]]),
  ]);
  return new Map([...permissions, ...marked]);
}

function unionOf(all: readonly Statements[]): Statements {
  const union = new Map<string, Set<string>>();
  for (const [resource, actions] of all.flatMap((statements) => [...statements])) {
    union.set(resource, new Set([...(union.get(resource) ?? []), ...actions]));
  }
  return union;
}
