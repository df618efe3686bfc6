/**
 * The actions that a role allows, by resource. Maps and not objects, because every object inherits
 * keys such as `constructor`.
 */
export type Statements = ReadonlyMap<string, ReadonlySet<string>>;

/** Better-Auth's `defaultRole`. A user row without a role also has this one. */
export const DEFAULT_ROLE = 'user';

/** The statements of each role. */
export type RolePermissions = ReadonlyMap<string, Statements>;
