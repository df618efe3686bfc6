import { problem } from '../problems/problem.js';
import type { Principal } from './principal.js';

/** Throws unless the row belongs to the user, or the user acts as an admin. */
export function requireOwnerOrAdmin({ user, isAdmin }: Principal, ownerId: string): void {
  if (user.id !== ownerId && !isAdmin) throw problem('AUTH_FORBIDDEN');
}
