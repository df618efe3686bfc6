import type { Permissions, RequiredPermissions } from './permissions.js';

/** The authenticated user of a request, with the token and the session. */
export interface Principal {
  readonly user: UserRow;
  /** The session of the token's session id. Null if the token has none. */
  readonly session: SessionRow | null;
  readonly token: VerifiedToken;
  readonly binding: Binding;
  /**
   * The id of the admin who impersonates this user. Null in the user's own session. It is also set
   * for a token without a session id that is valid only by an impersonated session.
   */
  readonly impersonatedBy: string | null;
  /** Whether the user acts as an admin. Always false in an impersonated session. */
  readonly isAdmin: boolean;
  /** What the user may do. An impersonated session has no permissions. */
  readonly permissions: Permissions;
  /** `can({ user: ['ban'] })`: whether one role of the user allows all these actions. */
  readonly can: (required: RequiredPermissions) => boolean;
}

/** The claims of a token whose signature is verified. Times are in seconds since 1970. */
export interface VerifiedToken {
  readonly subject: string;
  readonly sessionId: string | null;
  readonly issuedAt: number;
  readonly expiresAt: number;
  readonly notBefore: number | null;
  readonly keyId: string;
}

/** `session`: the token has a session id. `user`: the token is bound to its user only. */
export type Binding = 'session' | 'user';

/** The user row as plain values, not as an entity, so that it can be cached and shared. */
export interface UserRow {
  readonly id: string;
  readonly email: string;
  readonly emailVerified: boolean;
  readonly name: string;
  readonly image: string | null;
  /** As stored: comma-separated, and null for a user without an assigned role. */
  readonly role: string | null;
  readonly banned: boolean | null;
  readonly banReason: string | null;
  readonly banExpires: Date | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** The session row as plain values. The session token is never read. */
export interface SessionRow {
  readonly id: string;
  readonly userId: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly expiresAt: Date;
  readonly ipAddress: string | null;
  readonly userAgent: string | null;
  readonly impersonatedBy: string | null;
}

declare module 'express-serve-static-core' {
  interface Request {
    principal?: Principal;
  }
}
