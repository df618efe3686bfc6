/** Installed versions: the newest one, and the oldest one that Gatehouse supports. */
export const BETTER_AUTH_PACKAGES = ['better-auth', 'better-auth-oldest'] as const;

export type BetterAuthPackage = (typeof BETTER_AUTH_PACKAGES)[number];
