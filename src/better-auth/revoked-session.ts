/** What was in a session row that was deleted. */
export interface RevokedSession {
  id: string;
  userId: string;
  expiresAt: Date;
}

/** For the audit event: how many sessions ended in which this user impersonated somebody. */
export function countImpersonations(userId: string, ended: RevokedSession[]): object {
  const count = ended.filter((session) => session.userId !== userId).length;
  return count === 0 ? {} : { impersonationsEnded: count };
}
