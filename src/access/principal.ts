/** What a request is, once proven. */
export interface Principal {
  readonly user: UserRow;
  /** The session that the token names; null where it names none. */
  readonly session: SessionRow | null;
  readonly token: VerifiedToken;
  readonly binding: Binding;
  /**
   * The id of the admin who acts as this user; null in a session of their own. Also set where the token
   * names no session but only an impersonated one vouches for it.
   */
  readonly impersonatedBy: string | null;
  /** Whether this caller administers. Never in an impersonated session, whatever its user may do. */
  readonly isAdmin: boolean;
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

/** How a token is tied to a session: it names one, or it can only be tied to its user. */
export type Binding = 'session' | 'user';

/** The user row as decisions need it: values only, no entity, so that it can be kept and shared. */
export interface UserRow {
  readonly id: string;
  readonly email: string;
  readonly emailVerified: boolean;
  readonly name: string;
  readonly image: string | null;
  /** As stored: comma-joined, null for a user whom nobody gave one. */
  readonly role: string | null;
  readonly banned: boolean | null;
  readonly banReason: string | null;
  readonly banExpires: Date | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** The session row as decisions need it. Its token is never read. */
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
