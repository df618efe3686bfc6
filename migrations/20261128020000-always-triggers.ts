import { ChangeFeedTriggers } from './20261121030000-change-feed.js';

/**
 * Makes the triggers of the change feed again, now as `ENABLE ALWAYS`: they also fire for a writer with
 * `session_replication_role = replica`.
 */
export class AlwaysTriggers extends ChangeFeedTriggers {
  /** The release before this one works with these triggers as well. */
  override async down(): Promise<void> {}
}
