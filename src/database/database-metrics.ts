import { EntityManager } from '@mikro-orm/postgresql';
import { Injectable, type OnModuleInit } from '@nestjs/common';
import type { Pool } from 'pg';
import { type Histogram, Metrics } from '../metrics/metrics.js';
import { ChangeFeed } from './change-feed.js';

/** Measures the pool, its queries and the change feed. */
@Injectable()
export class DatabaseMetrics implements OnModuleInit {
  private readonly queries: Histogram | undefined;
  private pool: Pool | undefined;

  constructor(
    private readonly em: EntityManager,
    feed: ChangeFeed,
    metrics: Metrics,
  ) {
    this.queries = metrics.histogram({
      name: 'gatehouse_db_query_duration_seconds',
      help: 'Time of a query on a pooled connection. It excludes the wait for that connection.',
      // A query is cancelled after 2 s.
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    });
    metrics.gauge({
      name: 'gatehouse_db_pool_connections',
      help: 'Connections of the pool (used, idle), and requests that wait for one (waiting).',
      labels: ['state'],
      read: () => (this.pool ? statesOf(this.pool) : []),
    });
    const isOn = feed.state() !== 'off';
    metrics.gauge({
      name: 'gatehouse_change_feed_up',
      help: '1 while the change feed is connected. Absent if it is off.',
      read: () => (isOn ? [{ value: feed.isConnected ? 1 : 0 }] : []),
    });
    metrics.gauge({
      name: 'gatehouse_change_feed_age_seconds',
      help: 'The time since the last poll of the change feed. Above 0.25 the cache is not used.',
      read: () => (isOn ? [{ value: feed.ageMs / 1000 }] : []),
    });
  }

  async onModuleInit(): Promise<void> {
    const { queries } = this;
    if (!queries) return;
    this.pool = await this.em.getDriver().getConnection().getNativeClient();
    this.pool.on('connect', (client) => {
      const send = client.query.bind(client) as (...query: unknown[]) => unknown;
      client.query = ((...query: unknown[]) => {
        const sentAt = performance.now();
        const result = send(...query);
        const observe = () => queries.observe({}, (performance.now() - sentAt) / 1000);
        if (result instanceof Promise) result.then(observe, observe);
        return result;
      }) as typeof client.query;
    });
  }
}

function statesOf({ totalCount, idleCount, waitingCount }: Pool) {
  return [
    { labels: { state: 'used' }, value: totalCount - idleCount },
    { labels: { state: 'idle' }, value: idleCount },
    { labels: { state: 'waiting' }, value: waitingCount },
  ];
}
