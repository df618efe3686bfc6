import { ChangeFeedTriggers } from './20261121030000-change-feed.js';

/**
 * Creates the triggers of the change feed again, as `ENABLE ALWAYS`. They then also fire for a
 * writer with `session_replication_role = replica`.
 */
export class AlwaysTriggers extends ChangeFeedTriggers {
  /** The release before this one works with these triggers as well. */
  override async down(): Promise<void> {}
}
