import type { Request, Response } from 'express';
import type { Metrics } from '../metrics/metrics.js';

export interface RequestDurations {
  observe(request: Request, response: Response, seconds: number): void;
}

/** The histogram of all requests. Undefined without metrics. */
export function requestDurations(metrics: Metrics): RequestDurations | undefined {
  const histogram = metrics.histogram({
    name: 'http_server_request_duration_seconds',
    help: 'Time from the arrival of a request to the end of its response, by route template.',
    labels: ['method', 'route', 'status'],
    // A response takes at most 2.5 s, except exports and routes with a longer deadline.
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
  });
  return (
    histogram && {
      observe({ method, route }, { headersSent, statusCode }, seconds) {
        const labels = {
          method: METHODS.has(method) ? method : 'other',
          route: templateOf(route),
          // The default of Node is 200, even if no response was sent.
          status: headersSent ? String(statusCode) : 'aborted',
        };
        histogram.observe(labels, seconds);
      },
    }
  );
}

/** A request for an unknown path has no route. Its path is no label, because clients choose it. */
function templateOf(route: unknown): string {
  const { path } = (route ?? {}) as { path?: unknown };
  return typeof path === 'string' ? path : 'unmatched';
}

/** Node accepts 34 methods, and clients choose them. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
