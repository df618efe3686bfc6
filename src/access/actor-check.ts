import type { RequiredPermissions } from './permissions.js';
import type { Principal } from './principal.js';

/** Repeats the access check while a long response is sent. The auth module implements it. */
export abstract class ActorCheck {
  /** Rejects with a problem unless a new request with the same token would have the permissions. */
  abstract requirePermissions(principal: Principal, required: RequiredPermissions): Promise<void>;
}
