import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import {
  Inject,
  Injectable,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import type { Logger } from 'pino';
import { Environment } from '../config/environment.js';
import { LOG } from '../logging/logger.js';
import { Metrics } from './metrics.js';

/**
 * Serves `GET /metrics` on a port of its own. So a load balancer that publishes the API does not
 * publish the metrics. The port closes after the API, so Prometheus can scrape during a shutdown.
 */
@Injectable()
export class MetricsServer implements OnApplicationBootstrap, OnApplicationShutdown {
  private server: Server | undefined;
  private rendering: Promise<string> | undefined;

  constructor(
    private readonly metrics: Metrics,
    private readonly environment: Environment,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  async onApplicationBootstrap(): Promise<void> {
    const { METRICS_PORT, HOST } = this.environment;
    if (METRICS_PORT === undefined) return;
    const server = createServer(
      LIMITS,
      (request, response) => void this.respond(request, response),
    );
    server.maxConnections = MAX_CONNECTIONS;
    server.timeout = MAX_INACTIVITY_MS;
    this.server = server.listen(METRICS_PORT, HOST);
    await once(server, 'listening');
    this.log.info({ host: HOST, port: METRICS_PORT }, 'listening for scrapes of /metrics');
  }

  onApplicationShutdown(): void {
    this.server?.close();
    this.server?.closeAllConnections();
  }

  private async respond({ method, url }: IncomingMessage, response: ServerResponse): Promise<void> {
    if (url?.split('?', 1)[0] !== '/metrics') return void response.writeHead(404).end();
    if (method !== 'GET') return void response.writeHead(405, { Allow: 'GET' }).end();
    try {
      // Scrapes at the same time share one result.
      this.rendering ??= this.metrics.text().finally(() => (this.rendering = undefined));
      const text = await this.rendering;
      response.writeHead(200, { 'Content-Type': CONTENT_TYPE, 'Cache-Control': 'no-store' });
      response.end(text);
    } catch (error) {
      this.log.error({ err: error }, 'the metrics could not be read');
      response.writeHead(500).end();
    }
  }
}

const LIMITS = {
  headersTimeout: 5000,
  requestTimeout: 5000,
  connectionsCheckingInterval: 1000,
  // Each scrape may need a new connection. A peer that only waits would keep one of few.
  keepAliveTimeout: 5000,
};
const MAX_CONNECTIONS = 32;
/** For a peer that does not read the response. The other timeouts end with the request. */
const MAX_INACTIVITY_MS = 5000;
const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
