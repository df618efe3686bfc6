/**
 * The address of the same database without the PgBouncer of the tests (`TEST_PGBOUNCER`), for
 * programs that need a dedicated connection.
 */
export function bypassPooler(url: string): string {
  const { TEST_PGBOUNCER_PORT: pooler, TEST_POSTGRES_URL: server } = process.env;
  const direct = URL.parse(url);
  if (!pooler || !server || direct?.port !== pooler) return url;
  direct.port = new URL(server).port;
  return direct.href;
}
