import type { Principal } from './principal.js';

/** Repeats the access check while a long response is sent. The auth module implements it. */
export abstract class ActorCheck {
  /** Rejects with a problem unless a new request with the same token would have admin access. */
  abstract requireAdmin(principal: Principal): Promise<void>;
}
