/**
 * The same database without PgBouncer before it, where the tests have put one there (`TEST_PGBOUNCER`):
 * for whoever needs a connection that stays theirs.
 */
export function bypassPooler(url: string): string {
  const { TEST_PGBOUNCER_PORT: pooler, TEST_POSTGRES_URL: server } = process.env;
  const direct = URL.parse(url);
  if (!pooler || !server || direct?.port !== pooler) return url;
  direct.port = new URL(server).port;
  return direct.href;
}
