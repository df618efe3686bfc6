import type { Counter, Gauge, Registry } from 'prom-client';

export type Labels = Record<string, string>;

/** One value of a metric. */
export interface Sample {
  labels?: Labels;
  value: number;
}

interface Definition {
  name: string;
  help: string;
  /** The names of the labels. Their values come from a closed list, never from a request. */
  labels?: string[];
}

/** A counter or a gauge. Its owner keeps plain numbers, and each scrape reads them. */
interface ReadDefinition extends Definition {
  read: () => Sample[];
}

interface HistogramDefinition extends Definition {
  /** The upper bounds, in seconds. */
  buckets: number[];
}

export interface Histogram {
  observe(labels: Labels, seconds: number): void;
}

/**
 * The registry of all metrics. The module that owns a number registers it here. Without
 * `METRICS_PORT`, prom-client is not loaded and nothing is registered.
 */
export class Metrics {
  constructor(
    private readonly client?: typeof import('prom-client'),
    private readonly registry?: Registry,
  ) {}

  static async create(isEnabled: boolean): Promise<Metrics> {
    if (!isEnabled) return new Metrics();
    const { default: client } = await import('prom-client');
    const registry = new client.Registry();
    client.collectDefaultMetrics({ register: registry });
    for (const name of OMITTED) registry.removeSingleMetric(name);
    return new Metrics(client, registry);
  }

  counter(definition: ReadDefinition): void {
    this.register('Counter', definition);
  }

  gauge(definition: ReadDefinition): void {
    this.register('Gauge', definition);
  }

  /** Returns undefined if there is no registry, so that callers can skip the measurement. */
  histogram({ name, help, labels = [], buckets }: HistogramDefinition): Histogram | undefined {
    if (!this.client || !this.registry) return undefined;
    const registers = [this.registry];
    return new this.client.Histogram({ name, help, labelNames: labels, buckets, registers });
  }

  /** Returns all metrics in the text format of Prometheus. */
  async text(): Promise<string> {
    return (await this.registry?.metrics()) ?? '';
  }

  private register(type: 'Counter' | 'Gauge', { name, help, labels = [], read }: ReadDefinition) {
    if (!this.client || !this.registry) return;
    const metric: Counter | Gauge = new this.client[type]({
      name,
      help,
      labelNames: labels,
      registers: [this.registry],
      collect: () => {
        metric.reset();
        // Otherwise a metric without labels and without a sample would be 0.
        if (labels.length === 0) metric.remove();
        for (const sample of read()) metric.inc(sample.labels ?? {}, sample.value);
      },
    });
  }
}

/**
 * These metrics would list every open handle at each scrape. `promtool check metrics` also rejects
 * three of them, because their names end in `_total` and they are no counters.
 */
const OMITTED = [
  'nodejs_active_resources',
  'nodejs_active_handles',
  'nodejs_active_requests',
].flatMap((name) => [name, `${name}_total`]);
