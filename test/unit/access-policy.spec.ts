import { AccessPolicy, type AccessRule } from '../../src/access/access-policy.js';
import type { RequiredPermissions } from '../../src/access/permissions.js';
import type { RolePermissions } from '../../src/config/role-permissions.js';

const mapOf = (roles: Record<string, Record<string, string[]>>): RolePermissions =>
  new Map(
    Object.entries(roles).map(([role, statements]) => [
      role,
      new Map(Object.entries(statements).map(([name, actions]) => [name, new Set(actions)])),
    ]),
  );

const FILE = mapOf({
  admin: {
    user: ['list', 'get', 'ban', 'set-role', 'update'],
    session: ['list', 'revoke'],
    audit: ['list', 'export'],
  },
  support: { user: ['list', 'get'], session: ['list'] },
  moderator: { user: ['list', 'ban'], project: ['archive'] },
  everyday: { user: [], session: [] },
});

const policyOf = (change: Partial<AccessRule> = {}) =>
  new AccessPolicy({
    ADMIN_ROLES: ['admin'],
    ADMIN_USER_IDS: ['root'],
    ...change,
  });

const withFile = policyOf({ permissions: FILE });
const withoutFile = policyOf();
const ofRole = (policy: AccessPolicy, role: string | null, id = 'user-1') =>
  policy.permissionsOf({ id, role });

describe('permissions of a role', () => {
  it.each<[string, AccessPolicy, string | null, RequiredPermissions, boolean]>([
    ['one action of one role', withFile, 'support', { user: ['list'] }, true],
    ['several actions of one role', withFile, 'support', { user: ['list', 'get'] }, true],
    [
      'several resources of one role',
      withFile,
      'support',
      { user: ['get'], session: ['list'] },
      true,
    ],
    ['an action that the role lacks', withFile, 'support', { user: ['list', 'ban'] }, false],
    ['a resource that the role lacks', withFile, 'support', { audit: ['list'] }, false],
    ['an action of the second role', withFile, 'support,moderator', { user: ['ban'] }, true],
    [
      'actions of two roles together',
      withFile,
      'support,moderator',
      { user: ['get', 'ban'] },
      false,
    ],
    ['a resource of the application', withFile, 'moderator', { project: ['archive'] }, true],
    ['a role after a space', withFile, 'user, support', { user: ['list'] }, false],
    ['a role before a space', withFile, 'support ', { user: ['list'] }, false],
    ['a role in upper case', withFile, 'Support', { user: ['list'] }, false],
    ['a role that the file lacks', withFile, 'owner', { user: ['list'] }, false],
    ['no role', withFile, null, { user: ['list'] }, false],
    ['an empty list of the role', withFile, 'everyday', { user: ['list'] }, false],
    ['the role constructor', withFile, 'constructor', { user: ['list'] }, false],
    ['the role __proto__', withFile, '__proto__', { user: ['list'] }, false],
    ['the resource constructor', withFile, 'admin', { constructor: ['name'] }, false],
    ['no resource', withFile, 'admin', {}, false],
    ['an empty list of actions', withFile, 'admin', { user: [] }, false],
    ['an empty list beside another', withFile, 'admin', { user: ['list'], audit: [] }, false],
    ['an empty list, without a file', withoutFile, 'admin', { user: [] }, false],
    [
      'any action of an admin, without a file',
      withoutFile,
      'user,admin',
      { project: ['archive'] },
      true,
    ],
    [
      'any action of another role, without a file',
      withoutFile,
      'support',
      { user: ['list'] },
      false,
    ],
    ['the role constructor, without a file', withoutFile, 'constructor', { user: ['list'] }, false],
  ])('decides about %s', (_what, policy, role, required, expected) => {
    expect(ofRole(policy, role).can(required)).toBe(expected);
  });

  it.each([
    ['with', withFile],
    ['without', withoutFile],
  ])('allows a user of ADMIN_USER_IDS everything %s a file', (_with, policy) => {
    const { can, list } = ofRole(policy, 'user', 'root');
    expect(can({ user: ['ban'], anything: ['at-all'] })).toBe(true);
    expect(list['user']).toContain('impersonate-admins');
  });

  it('gives an impersonated session no permissions', () => {
    expect(withoutFile.none.can({ user: ['list'] })).toBe(false);
    expect(withoutFile.none.list).toEqual({ user: [], session: [], audit: [] });
  });

  it('decides in the same way after more texts of roles than it caches', () => {
    const first = ofRole(withFile, 'role-0');
    expect(ofRole(withFile, 'role-0')).toBe(first);
    for (let i = 0; i < 3000; i += 1) ofRole(withFile, `role-${i}`);
    expect(ofRole(withFile, 'role-0')).not.toBe(first);
    const long = 'x'.repeat(256);
    expect(ofRole(withFile, long)).not.toBe(ofRole(withFile, long));
    expect(ofRole(withFile, 'support').can({ user: ['list'] })).toBe(true);
    expect(ofRole(withFile, 'role-1').can({ user: ['list'] })).toBe(false);
  });
});

describe('list of permissions', () => {
  it('is the union over the roles, with a list for every known resource', () => {
    expect(ofRole(withFile, 'support,moderator,owner').list).toEqual({
      user: ['list', 'get', 'ban'],
      session: ['list'],
      audit: [],
      project: ['archive'],
    });
  });

  it('has the statements of Better-Auth and Gatehouse for an admin without a file', () => {
    expect(ofRole(withoutFile, 'admin').list).toEqual({
      user: expect.arrayContaining(['list', 'get', 'update', 'set-role', 'ban', 'impersonate']),
      session: ['list', 'revoke', 'delete'],
      audit: ['list', 'export'],
    });
  });
});

describe('missing permissions', () => {
  it.each<[string | null, RequiredPermissions, RequiredPermissions]>([
    ['support', { user: ['ban'] }, { user: ['ban'] }],
    ['support', { user: ['list', 'ban'], audit: ['list'] }, { user: ['ban'], audit: ['list'] }],
    ['support,moderator', { user: ['get', 'list', 'ban'] }, { user: ['ban'] }],
    [
      'moderator,support',
      { user: ['get'], session: ['list'], audit: ['list'] },
      { audit: ['list'] },
    ],
    [null, { user: ['get'], session: ['list'] }, { user: ['get'], session: ['list'] }],
    ['admin', { user: ['ban'] }, {}],
  ])('are, for the role %j and %j, %j', (role, required, missing) => {
    expect(ofRole(withFile, role).missing(required)).toEqual(missing);
  });
});

describe('comparison of permissions', () => {
  it.each<[string | null, string | null, boolean]>([
    ['admin', 'support', true],
    ['admin', 'admin', true],
    ['admin', null, true],
    ['admin', 'admin,support', true],
    ['admin', 'everyday', true],
    ['support', 'everyday,owner', true],
    [null, 'everyday', true],
    ['support', 'admin', false],
    ['support', 'moderator', false],
    ['admin', 'moderator', false],
    ['support,moderator', 'moderator', true],
    ['support,moderator', 'support,moderator', true],
    [null, 'support', false],
  ])('finds that %j includes %j: %s', (own, other, expected) => {
    expect(ofRole(withFile, own).includes(ofRole(withFile, other))).toBe(expected);
  });

  it('does not let two roles together include one that has the actions of both', () => {
    const policy = policyOf({
      permissions: mapOf({
        a: { user: ['list'] },
        b: { user: ['ban'] },
        c: { user: ['list', 'ban'] },
      }),
    });
    expect(ofRole(policy, 'a,b').includes(ofRole(policy, 'c'))).toBe(false);
    expect(ofRole(policy, 'c').includes(ofRole(policy, 'a,b'))).toBe(true);
  });

  it.each([
    ['lacks', {}],
    ['gives few permissions', { admin: { user: ['list'] } }],
  ])('lets no other role include an admin role that the file %s', (_, admin) => {
    const roles = { ...admin, manager: { user: ['list', 'set-role'] } };
    const policy = policyOf({ permissions: mapOf(roles) });
    expect(ofRole(policy, 'manager').includes(ofRole(policy, 'manager,admin'))).toBe(false);
    expect(ofRole(policy, 'admin').includes(ofRole(policy, 'admin'))).toBe(true);
    expect(Object.keys(ofRole(policy, 'admin').list)).toEqual(['user', 'session', 'audit']);
  });

  it('includes the permissions of every user only for a user who may do everything', () => {
    const root = ofRole(withFile, null, 'root');
    expect(root.includes(ofRole(withFile, 'admin'))).toBe(true);
    expect(root.includes(root)).toBe(true);
    expect(ofRole(withFile, 'admin').includes(root)).toBe(false);
    expect(ofRole(withoutFile, 'admin').includes(ofRole(withoutFile, 'admin'))).toBe(true);
  });
});
