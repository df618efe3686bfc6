/** A session row that was deleted. */
export interface RevokedSession {
  id: string;
  userId: string;
  createdAt: Date;
  expiresAt: Date;
  impersonatedBy: string | null;
}

/** For the audit event: the number of revoked sessions in which this user impersonated others. */
export function countImpersonations(userId: string, revoked: RevokedSession[]): object {
  const count = revoked.filter((session) => session.userId !== userId).length;
  return count === 0 ? {} : { impersonationsEnded: count };
}
