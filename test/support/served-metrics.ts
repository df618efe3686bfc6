/**
 * The metrics that alerts and dashboards may use, with their labels. `metrics.e2e-spec.ts` compares
 * them with a scrape.
 */
export const SERVED_METRICS: Record<string, string[]> = {
  http_server_request_duration_seconds: ['method', 'route', 'status', 'le'],
  gatehouse_auth_total: ['result', 'code'],
  gatehouse_cache_total: ['cache', 'result'],
  gatehouse_change_feed_up: [],
  gatehouse_change_feed_age_seconds: [],
  gatehouse_jwks_age_seconds: [],
  gatehouse_jwks_keys: [],
  gatehouse_admin_actions_total: ['action'],
  gatehouse_db_pool_connections: ['state'],
  gatehouse_db_query_duration_seconds: ['le'],
  gatehouse_rate_limited_total: ['kind'],
  process_cpu_seconds_total: [],
  process_resident_memory_bytes: [],
  nodejs_eventloop_lag_p99_seconds: [],
};
