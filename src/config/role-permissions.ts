/**
 * The actions that a role allows, by resource. Maps and not objects, because every object inherits
 * keys such as `constructor`.
 */
export type Statements = ReadonlyMap<string, ReadonlySet<string>>;

/** The statements of each role. */
export type RolePermissions = ReadonlyMap<string, Statements>;
