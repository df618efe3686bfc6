import { ChangeFeedTriggers } from './20261121030000-change-feed.js';

/**
 * Replaces the triggers that sent notifications by triggers that write the table of changed users.
 * Replicas of the earlier release then miss their triggers and stop caching.
 *
 * `down` removes the table and its triggers. The earlier release creates its own triggers at its
 * next `npm run migrate`, and does not cache before that.
 */
export class ChangeTable extends ChangeFeedTriggers {}
