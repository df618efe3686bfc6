import {
  Inject,
  Injectable,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { EntityManager } from '@mikro-orm/postgresql';
import { Client } from 'pg';
import type { Logger } from 'pino';
import { Environment } from '../config/environment.js';
import { LOG } from '../logging/logger.js';
import {
  CHANNEL,
  EVERYTHING_CHANGED,
  explainTriggers,
  type TriggerState,
  triggerState,
  USER_CHANGED,
} from './change-triggers.js';
import {
  CONNECT_TIMEOUT_MS,
  destroyConnection,
  UnusableDatabaseError,
  renewConnections,
} from './connection.js';
import {
  READ_ONLY,
  REPLY_TIMEOUT_MS,
  requireWritable,
  verifyDelivery,
  type WriteState,
} from './delivery-check.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from './physical-schema.js';

/** A cache of database rows. The feed calls it when rows change. */
export interface ChangeSubscriber {
  invalidateUser(id: string): void;
  invalidateAll(): void;
}

export type ChangeFeedState = 'off' | 'listening' | 'away';

/**
 * Receives PostgreSQL notifications about changed users and sessions on a dedicated connection, and
 * notifies its subscribers. A subscriber may use cached data only while `isLive` is true.
 *
 * `isLive` is a lease. A heartbeat query renews it a few times a second. PostgreSQL delivers
 * pending notifications before it completes that query, so every earlier change has arrived by
 * then. A connection that does not complete the query in time counts as lost.
 */
@Injectable()
export class ChangeFeed implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly subscribers = new Set<ChangeSubscriber>();
  private client: Client | undefined;
  private leaseExpiresAt = Number.NEGATIVE_INFINITY;
  private timer: NodeJS.Timeout | undefined;
  private serverTimer: NodeJS.Timeout | undefined;
  private triggerVersion: string | null = null;
  private failures = 0;
  private lastError: string | null = null;
  private stopped = false;

  constructor(
    private readonly em: EntityManager,
    private readonly environment: Environment,
    @Inject(PHYSICAL_SCHEMA) private readonly physical: PhysicalSchema,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  /** The start does not wait for the feed: without it, every request queries the database. */
  onApplicationBootstrap(): void {
    if (this.environment.CHANGE_FEED) void this.connect();
  }

  onApplicationShutdown(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    clearTimeout(this.serverTimer);
    this.leaseExpiresAt = Number.NEGATIVE_INFINITY;
    if (this.client) destroyConnection(this.client);
  }

  /** Whether the lease is valid, so that subscribers may use cached data. */
  get isLive(): boolean {
    return performance.now() < this.leaseExpiresAt;
  }

  /** The time since the last heartbeat. Infinite while the feed is disconnected. */
  get ageMs(): number {
    return performance.now() - this.leaseExpiresAt + LEASE_MS;
  }

  /** The state that the health check reports. */
  state(): ChangeFeedState {
    if (!this.environment.CHANGE_FEED) return 'off';
    return this.isLive ? 'listening' : 'away';
  }

  /** Calls the subscriber on every later change. */
  subscribe(subscriber: ChangeSubscriber): void {
    this.subscribers.add(subscriber);
  }

  /** Invalidates one user now. A change made by this process must not wait for its notification. */
  notifyUserChanged(id: string): void {
    for (const subscriber of this.subscribers) subscriber.invalidateUser(id);
  }

  private notifyAllChanged(): void {
    for (const subscriber of this.subscribers) subscriber.invalidateAll();
  }

  private async connect(): Promise<void> {
    const client = new Client({
      connectionString: this.environment.directUrl,
      application_name: 'gatehouse change feed',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: REPLY_TIMEOUT_MS,
      keepAlive: true,
    });
    this.client = client;
    client.on('error', () => undefined);
    client.on('notification', ({ payload }) => this.onNotification(payload ?? ''));
    client.once('end', () => this.disconnect(client));
    try {
      await client.connect();
      await client.query(`listen ${CHANNEL}`);
      await verifyDelivery(client, this.environment.DATABASE_URL);
      // The pool may still have connections to the server that used this address before.
      await renewConnections(await this.em.getDriver().getConnection().getNativeClient());
      // A load in progress may have read its rows before this connection listened.
      this.notifyAllChanged();
      await this.heartbeat(client);
      this.scheduleServerCheck(client, performance.now());
      this.failures = 0;
      if (this.lastError !== null) this.log.info('change feed reconnected');
      this.lastError = null;
    } catch (error) {
      this.fail(client, error);
    }
  }

  private onNotification(payload: string): void {
    if (payload.startsWith(USER_CHANGED)) {
      this.notifyUserChanged(payload.slice(USER_CHANGED.length));
    }
    if (payload === EVERYTHING_CHANGED) this.notifyAllChanged();
  }

  private scheduleServerCheck(client: Client, checkedAt: number): void {
    if (this.client !== client || this.stopped) return;
    this.serverTimer = setTimeout(() => void this.checkServer(client, checkedAt), CHECK_MS).unref();
  }

  private async checkServer(client: Client, checkedAt: number): Promise<void> {
    try {
      await verifyDelivery(client, this.environment.DATABASE_URL);
      this.scheduleServerCheck(client, performance.now());
    } catch (error) {
      if (this.client !== client) return;
      // A database without a free connection also fails this check. Keep the cache for a while:
      // without it, Gatehouse would send that database more queries.
      const isBusy = error instanceof UnusableDatabaseError;
      if (isBusy && performance.now() - checkedAt < MAX_UNCHECKED_MS) {
        this.scheduleServerCheck(client, checkedAt);
        return;
      }
      this.fail(client, error);
    }
  }

  /**
   * Renews the lease. It also checks the triggers: a table that was dropped and created again has
   * none, and its changes would go unnoticed.
   */
  private async heartbeat(client: Client): Promise<void> {
    const sentAt = performance.now();
    const { rows } = await client.query<TriggerState & WriteState>(
      `select *, ${READ_ONLY} as "isReadOnly" from (${triggerState(this.physical)}) as triggers`,
    );
    const [state] = rows;
    requireWritable(state);
    const reason = explainTriggers(state);
    if (reason !== undefined) throw new Error(reason);
    if (this.client !== client || this.stopped) return;
    // A changed trigger may have been disabled for a while.
    const version = state?.version ?? null;
    if (version !== this.triggerVersion) this.notifyAllChanged();
    this.triggerVersion = version;
    this.leaseExpiresAt = sentAt + LEASE_MS;
    this.timer = setTimeout(() => {
      this.heartbeat(client).catch((error: unknown) => this.fail(client, error));
    }, HEARTBEAT_MS).unref();
  }

  private fail(client: Client, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    if (!this.stopped && this.lastError !== message) {
      this.log.warn({ error: message }, 'change feed disconnected; cache disabled');
    }
    this.lastError = message;
    destroyConnection(client);
    this.disconnect(client);
  }

  /** Runs once for each connection. Invalidates all, because notifications may have been lost. */
  private disconnect(client: Client): void {
    if (this.client !== client) return;
    this.client = undefined;
    this.leaseExpiresAt = Number.NEGATIVE_INFINITY;
    this.notifyAllChanged();
    clearTimeout(this.timer);
    clearTimeout(this.serverTimer);
    if (this.stopped) return;
    this.lastError ??= 'connection lost';
    const delayMs = Math.min(MIN_RECONNECT_MS * 2 ** this.failures, MAX_RECONNECT_MS);
    this.failures += 1;
    this.timer = setTimeout(() => void this.connect(), delayMs).unref();
  }
}

const HEARTBEAT_MS = 300;
/** The interval of the check that `DATABASE_URL` names the same server. */
const CHECK_MS = 5000;
/** How long that check may fail for lack of a free connection. */
const MAX_UNCHECKED_MS = 15_000;
/** How long cached data may be used after a heartbeat was sent. */
const LEASE_MS = 1000;
const MIN_RECONNECT_MS = 50;
const MAX_RECONNECT_MS = 2000;
