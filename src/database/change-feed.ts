import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
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
  withConnection,
} from './connection.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from './physical-schema.js';

/** Who remembers what the database said, and must forget it when it changes. */
export interface ChangeSubscriber {
  invalidateUser(id: string): void;
  invalidateAll(): void;
}

export type ChangeFeedState = 'off' | 'listening' | 'away';

/**
 * What PostgreSQL tells about users and sessions that changed, by whomever: one connection of its own
 * that listens. What is remembered is worth something only while `isHearing`: the connection is asked a
 * few times a second, its answers come behind what it had to tell, and a silent one counts as lost.
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

  /** Not waited for: without it the database is asked on every request. */
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

  get isLive(): boolean {
    return performance.now() < this.leaseExpiresAt;
  }

  state(): ChangeFeedState {
    if (!this.environment.CHANGE_FEED) return 'off';
    return this.isLive ? 'listening' : 'away';
  }

  subscribe(remembering: ChangeSubscriber): void {
    this.subscribers.add(remembering);
  }

  /** For a change made here, which the next request must see, whenever PostgreSQL tells of it. */
  notifyUserChanged(id: string): void {
    for (const each of this.subscribers) each.invalidateUser(id);
  }

  private notifyAllChanged(): void {
    for (const each of this.subscribers) each.invalidateAll();
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
      await this.verifyDelivery(client);
      // The pool may still be connected to the server that had this address before.
      await renewConnections(await this.em.getDriver().getConnection().getNativeClient());
      // What is being read now may be from before anybody listened.
      this.notifyAllChanged();
      await this.heartbeat(client);
      this.scheduleServerCheck(client, performance.now());
      this.failures = 0;
      if (this.lastError !== null) this.log.info('changes are told again');
      this.lastError = null;
    } catch (error) {
      this.fail(client, error);
    }
  }

  private onNotification(message: string): void {
    if (message.startsWith(USER_CHANGED))
      this.notifyUserChanged(message.slice(USER_CHANGED.length));
    if (message === EVERYTHING_CHANGED) this.notifyAllChanged();
  }

  /**
   * `DATABASE_URL` and `DATABASE_DIRECT_URL` can lead to different databases, and an address can move to
   * another server while this connection stays with the old one. Asks by a new connection for that reason.
   */
  private async verifyDelivery(client: Client): Promise<void> {
    const word = `here ${randomUUID()}`;
    const { promise: heard, resolve } = Promise.withResolvers<true>();
    const listener = ({ payload }: { payload?: string | undefined }) => {
      if (payload === word) resolve(true);
    };
    client.on('notification', listener);
    try {
      await withConnection(
        this.environment.DATABASE_URL,
        async (speaker) => {
          const { rows } = await speaker.query<Server>(
            `select ${READ_ONLY} as "isReadOnly", pg_notify($1, $2)`,
            [CHANNEL, word],
          );
          requireWritable(rows[0]);
        },
        { connectionTimeoutMillis: CONNECT_TIMEOUT_MS, query_timeout: REPLY_TIMEOUT_MS },
      );
      if (!(await Promise.race([heard, sleep(REPLY_TIMEOUT_MS, false, { ref: false })]))) {
        throw new Error('DATABASE_DIRECT_URL does not hear what DATABASE_URL says');
      }
    } finally {
      client.off('notification', listener);
    }
  }

  private scheduleServerCheck(client: Client, checkedAt: number): void {
    if (this.client !== client || this.stopped) return;
    this.serverTimer = setTimeout(() => void this.checkServer(client, checkedAt), CHECK_MS).unref();
  }

  private async checkServer(client: Client, checkedAt: number): Promise<void> {
    try {
      await this.verifyDelivery(client);
      this.scheduleServerCheck(client, performance.now());
    } catch (error) {
      if (this.client !== client) return;
      // A database without a free connection is no reason to ask it more often, for a while.
      const isBusy = error instanceof UnusableDatabaseError;
      if (isBusy && performance.now() - checkedAt < MAX_UNCHECKED_MS) {
        this.scheduleServerCheck(client, checkedAt);
        return;
      }
      this.fail(client, error);
    }
  }

  /** A table that is made anew loses its triggers, and then nothing would be told and nothing seem wrong. */
  private async heartbeat(client: Client): Promise<void> {
    const asked = performance.now();
    const { rows } = await client.query<TriggerState & Server>(
      `select *, ${READ_ONLY} as "isReadOnly" from (${triggerState(this.physical)}) as triggers`,
    );
    const [state] = rows;
    requireWritable(state);
    const fault = explainTriggers(state);
    if (fault !== undefined) throw new Error(fault);
    if (this.client !== client || this.stopped) return;
    // A trigger was changed, so it may have been disabled for a while.
    const version = state?.version ?? null;
    if (version !== this.triggerVersion) this.notifyAllChanged();
    this.triggerVersion = version;
    this.leaseExpiresAt = asked + LEASE_MS;
    this.timer = setTimeout(() => {
      this.heartbeat(client).catch((error: unknown) => this.fail(client, error));
    }, HEARTBEAT_MS).unref();
  }

  private fail(client: Client, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    if (!this.stopped && this.lastError !== message) {
      this.log.warn(
        { error: message },
        'changes are not told: the database is asked on every request',
      );
    }
    this.lastError = message;
    destroyConnection(client);
    this.disconnect(client);
  }

  /** Once for each connection: what it might have told meanwhile is not known. */
  private disconnect(client: Client): void {
    if (this.client !== client) return;
    this.client = undefined;
    this.leaseExpiresAt = Number.NEGATIVE_INFINITY;
    this.notifyAllChanged();
    clearTimeout(this.timer);
    clearTimeout(this.serverTimer);
    if (this.stopped) return;
    this.lastError ??= 'the connection was lost';
    const pause = Math.min(MIN_RECONNECT_MS * 2 ** this.failures, MAX_RECONNECT_MS);
    this.failures += 1;
    this.timer = setTimeout(() => void this.connect(), pause).unref();
  }
}

/** A standby is read-only as well. */
const READ_ONLY = `current_setting('transaction_read_only')::boolean`;

interface Server {
  isReadOnly: boolean;
}

function requireWritable(server: Server | undefined): void {
  if (server?.isReadOnly !== false) throw new Error('the database is read-only or a standby');
}

const HEARTBEAT_MS = 300;
/** How often the server behind `DATABASE_URL` is compared, and for how long that may fail to connect. */
const CHECK_MS = 5000;
const MAX_UNCHECKED_MS = 15_000;
/** How long a connection may be silent before what it said last is worth nothing. */
const LEASE_MS = 1000;
const REPLY_TIMEOUT_MS = 1000;
const MIN_RECONNECT_MS = 50;
const MAX_RECONNECT_MS = 2000;
