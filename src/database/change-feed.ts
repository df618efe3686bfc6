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
import { ChangeServerCheck } from './change-server-check.js';
import {
  markTable,
  MAX_GAP_SECONDS,
  MAX_USERS,
  type Poll,
  readChanges,
  REPLY_TIMEOUT_MS,
} from './change-table.js';
import { explainTriggers, type TriggerState, triggerState } from './change-triggers.js';
import { CONNECT_TIMEOUT_MS, destroyConnection, renewConnections } from './connection.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from './physical-schema.js';

/** A cache of database rows. The feed calls it when rows change. */
export interface ChangeSubscriber {
  invalidateUser(id: string): void;
  invalidateAll(): void;
}

export type ChangeFeedState = 'off' | 'connected' | 'disconnected';

/**
 * Polls `gatehouse.change` on a dedicated connection, and notifies its subscribers of the users
 * that changed. Triggers write that table.
 *
 * Each poll renews a lease. A subscriber may use cached data only during the lease, so no change
 * goes unnoticed for longer. Polls are frequent while subscribers request the lease. After an idle
 * time, the first request finds no lease. It queries the database, and the polls become frequent
 * again.
 */
@Injectable()
export class ChangeFeed implements OnApplicationBootstrap, OnApplicationShutdown {
  private readonly subscribers = new Set<ChangeSubscriber>();
  private client: Client | undefined;
  private check: ChangeServerCheck | undefined;
  /** The last poll. Undefined until the connection is verified. */
  private last: Poll | undefined;
  private leaseExpiresAt = Number.NEGATIVE_INFINITY;
  private leaseRequestedAt = Number.NEGATIVE_INFINITY;
  private triggersCheckedAt = Number.NEGATIVE_INFINITY;
  private triggerVersion: string | null = null;
  private timer: NodeJS.Timeout | undefined;
  private isIdle = false;
  private failures = 0;
  private lastError: string | null = null;

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
    this.close();
  }

  /** Whether the lease is valid at the time `now`, so that the subscriber may use cached data. */
  requestLease(now: number): boolean {
    this.leaseRequestedAt = now;
    if (now < this.leaseExpiresAt) return true;
    if (this.isIdle && this.client) void this.run(this.client);
    return false;
  }

  /** Whether the feed is connected, so that it will notify subscribers of every later change. */
  get isConnected(): boolean {
    return this.last !== undefined;
  }

  /** The time since the last poll. Infinite while the feed is disconnected. */
  get ageMs(): number {
    return performance.now() - this.leaseExpiresAt + LEASE_MS;
  }

  /** The state that the health check reports. */
  state(): ChangeFeedState {
    if (!this.environment.CHANGE_FEED) return 'off';
    return this.isConnected ? 'connected' : 'disconnected';
  }

  /** Calls the subscriber on every later change. */
  subscribe(subscriber: ChangeSubscriber): void {
    this.subscribers.add(subscriber);
  }

  /** Invalidates one user now. A change made by this process must not wait for the next poll. */
  notifyUserChanged(id: string): void {
    for (const subscriber of this.subscribers) subscriber.invalidateUser(id);
  }

  private notifyAllChanged(): void {
    for (const subscriber of this.subscribers) subscriber.invalidateAll();
  }

  private async connect(): Promise<void> {
    const client = new Client({
      connectionString: this.environment.DATABASE_URL,
      application_name: 'gatehouse change feed',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: REPLY_TIMEOUT_MS,
      keepAlive: true,
    });
    this.client = client;
    const fail = (error: unknown) => this.fail(client, error);
    client.on('error', () => undefined);
    // Runs after the error handler of the query in progress, because that error has the reason.
    client.once('end', () => setImmediate(fail, new Error('connection lost')));
    try {
      await client.connect();
      await this.checkTriggers(client);
      await markTable(client);
      const first = await readChanges(client, null);
      if (first.incarnation === null) throw new Error('prepared transactions are pending');
      const check = new ChangeServerCheck(this.environment.DATABASE_URL, first, fail, this.log);
      await check.start();
      if (this.client !== client) return check.stop();
      this.check = check;
      // The pool may still have connections to the server that used this address before.
      await renewConnections(await this.em.getDriver().getConnection().getNativeClient());
      if (this.client !== client) return;
      // A load in progress may have read its rows before the first poll.
      this.notifyAllChanged();
      this.last = first;
    } catch (error) {
      return fail(error);
    }
    this.failures = 0;
    if (this.lastError !== null) this.log.info('change feed reconnected');
    this.lastError = null;
    await this.run(client);
  }

  /** Polls once, and schedules the next time. */
  private async run(client: Client): Promise<void> {
    this.isIdle = false;
    clearTimeout(this.timer);
    try {
      if (performance.now() - this.triggersCheckedAt >= TRIGGER_CHECK_MS) {
        await this.checkTriggers(client);
      }
      await this.poll(client);
    } catch (error) {
      return this.fail(client, error);
    }
    if (this.client !== client) return;
    this.isIdle = performance.now() - this.leaseRequestedAt > ACTIVE_MS;
    const delayMs = this.isIdle ? IDLE_POLL_MS : POLL_MS;
    this.timer = setTimeout(() => void this.run(client), delayMs).unref();
  }

  private async poll(client: Client): Promise<void> {
    const { last } = this;
    if (!last) return;
    const sentAt = performance.now();
    const next = await readChanges(client, last.snapshot);
    if (this.client !== client) return;
    if (next.incarnation !== last.incarnation) {
      throw new Error('PostgreSQL lost changes in a crash, or another server has its address');
    }
    // Replicas delete old rows, so this poll may have missed some.
    const isGap = Math.abs(next.read_at - last.read_at) > MAX_GAP_SECONDS;
    if (isGap || next.users.length > MAX_USERS || next.users.includes(null)) {
      this.notifyAllChanged();
    } else {
      for (const id of next.users) this.notifyUserChanged(String(id));
    }
    this.last = next;
    if (this.check) this.check.last = next;
    this.leaseExpiresAt = sentAt + LEASE_MS;
  }

  /** A table that was dropped and created again has no triggers, which would record its changes. */
  private async checkTriggers(client: Client): Promise<void> {
    const sentAt = performance.now();
    const { rows } = await client.query<TriggerState>(triggerState(this.physical));
    const reason = explainTriggers(rows[0]);
    if (reason !== undefined) throw new Error(reason);
    if (this.client !== client) return;
    this.triggersCheckedAt = sentAt;
    // A changed trigger may have been disabled for a while.
    const version = rows[0]?.version ?? null;
    if (version !== this.triggerVersion) this.notifyAllChanged();
    this.triggerVersion = version;
  }

  /** Closes a failed connection, and schedules the next one. */
  private fail(client: Client, error: unknown): void {
    if (this.client !== client) return;
    this.close();
    const message = error instanceof Error ? error.message : String(error);
    if (this.lastError !== message) {
      this.log.warn({ error: message }, 'change feed disconnected; cache disabled');
    }
    this.lastError = message;
    const delayMs = Math.min(MIN_RECONNECT_MS * 2 ** this.failures, MAX_RECONNECT_MS);
    this.failures += 1;
    this.timer = setTimeout(() => void this.connect(), delayMs).unref();
  }

  /** Invalidates all users, because the next connection reads only later changes. */
  private close(): void {
    const { client } = this;
    this.client = undefined;
    this.last = undefined;
    this.isIdle = false;
    this.leaseExpiresAt = Number.NEGATIVE_INFINITY;
    this.notifyAllChanged();
    clearTimeout(this.timer);
    this.check?.stop();
    if (client) destroyConnection(client);
  }
}

/** The interval of the polls until `ACTIVE_MS` after the last request of the lease. */
const POLL_MS = 10;
const ACTIVE_MS = 2000;
/** The interval of the polls at other times. */
const IDLE_POLL_MS = 2000;
/** The minimum interval of the check of the triggers. */
const TRIGGER_CHECK_MS = 300;
/** How long cached data may be used after a poll was sent. */
const LEASE_MS = 250;
const MIN_RECONNECT_MS = 50;
const MAX_RECONNECT_MS = 2000;
