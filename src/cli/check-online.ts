import { isIP } from 'node:net';
import { connect } from 'node:tls';
import { Client } from 'pg';
import { selectKeys, type VerificationKey } from '../auth/jwk.js';
import { fetchKeySet, requireSecureUrl } from '../auth/jwks-fetcher.js';
import type { Environment } from '../config/environment.js';
import { readChanges, readTableFile } from '../database/change-table.js';
import type { PhysicalSchema } from '../database/physical-schema.js';
import { explainToken } from './explain-token.js';

export interface OnlineFindings {
  /** Findings without a problem, one line each. */
  facts: string[];
  faults: string[];
  warnings: string[];
}

interface OnlineOptions {
  environment: Environment;
  physical: PhysicalSchema;
  client: Client;
  /** From standard input, if there was one. */
  token: string | undefined;
  replicas: number;
}

/** Checks what needs a running system: the issuer, a token, the clocks and the limits. */
export async function checkOnline(options: OnlineOptions): Promise<OnlineFindings> {
  const findings: OnlineFindings = { facts: [], faults: [], warnings: [] };
  const keys = await checkKeys(options, findings);
  await checkIssuer(options, findings);
  await checkToken(options, keys, findings);
  await checkConnections(options, findings);
  await checkFeed(options, findings);
  return findings;
}

async function checkKeys(
  { environment }: OnlineOptions,
  { facts, faults, warnings }: OnlineFindings,
): Promise<ReadonlyMap<string, VerificationKey> | undefined> {
  try {
    requireSecureUrl(environment.jwksUrl);
    const published = await fetchKeySet(environment.jwksUrl, new AbortController().signal);
    const { keys, rejected } = selectKeys(published.keys, environment.JWT_ALGORITHMS);
    for (const { kid, reason } of rejected) warnings.push(`Key ${kid} is rejected: ${reason}.`);
    if (keys.size === 0) faults.push('The key set has no key that Gatehouse can use.');
    const algorithms = [...new Set([...keys.values()].map(({ algorithm }) => algorithm))];
    facts.push(`issuer  ${keys.size} usable keys (${algorithms.join(', ')})`);
    return keys;
  } catch (error) {
    faults.push(`The key set cannot be fetched: ${describeFetchError(error)}.`);
    return undefined;
  }
}

/** Checks the certificate and the clock of the issuer. `checkKeys` reports a failed connection. */
async function checkIssuer({ environment }: OnlineOptions, findings: OnlineFindings) {
  const { protocol, hostname, port } = new URL(environment.jwksUrl);
  const host = hostname.replace(/^\[(.*)\]$/, '$1');
  if (protocol === 'https:') {
    const days = await daysOfCertificate(host, Number(port || 443));
    if (days !== undefined)
      findings.facts.push(`TLS     the certificate is valid for ${days} days`);
    if (days !== undefined && days < MIN_CERTIFICATE_DAYS) {
      findings.warnings.push(`The certificate of the issuer expires in ${days} days. Renew it.`);
    }
  } else findings.facts.push('TLS     not used: the issuer is on this machine');
  const skew = await clockSkewOf(environment.jwksUrl);
  if (skew === undefined) return;
  findings.facts.push(`clock   the issuer is ${describeSkew(skew)}`);
  if (Math.abs(skew) <= environment.JWT_LEEWAY_SECONDS + 1) return;
  findings.warnings.push(
    `The clock of the issuer is ${describeSkew(skew)}. JWT_LEEWAY_SECONDS is ${environment.JWT_LEEWAY_SECONDS}, so Gatehouse refuses valid tokens, or accepts expired ones. Synchronise both clocks (NTP).`,
  );
}

function describeSkew(seconds: number): string {
  if (Math.abs(seconds) < 1.5) return 'within 1.5 s of this machine';
  return `${Math.abs(seconds).toFixed(0)} s ${seconds > 0 ? 'ahead of' : 'behind'} this machine`;
}

/** Returns undefined if the connection fails. `checkKeys` reports the reason. */
function daysOfCertificate(host: string, port: number): Promise<number | undefined> {
  const { promise, resolve } = Promise.withResolvers<number | undefined>();
  // TLS has no server names for addresses.
  const servername = isIP(host) === 0 ? host : '';
  const socket = connect({ host, port, servername, timeout: TIMEOUT_MS }, () => {
    const expiresAt = Date.parse(socket.getPeerCertificate().valid_to);
    resolve(Math.floor((expiresAt - Date.now()) / 86_400_000));
    socket.end();
  });
  socket.on('error', () => resolve(undefined));
  socket.on('timeout', () => socket.destroy(new Error('timeout')));
  return promise;
}

/** The `Date` header has whole seconds, so half a second is added. */
async function clockSkewOf(url: string): Promise<number | undefined> {
  try {
    const before = Date.now();
    const response = await fetch(url, {
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const now = (before + Date.now()) / 2000;
    await response.body?.cancel();
    const date = Date.parse(response.headers.get('date') ?? '');
    return Number.isNaN(date) ? undefined : date / 1000 + 0.5 - now;
  } catch {
    return undefined;
  }
}

async function checkToken(
  { environment, physical, token }: OnlineOptions,
  keys: ReadonlyMap<string, VerificationKey> | undefined,
  { facts, faults }: OnlineFindings,
): Promise<void> {
  if (token === undefined) facts.push('token   none on standard input, so none is checked');
  if (token === undefined || !keys) return;
  const reason = await explainToken(token, keys, environment, physical);
  if (reason === undefined) facts.push('token   accepted');
  else faults.push(`Gatehouse refuses the token: ${reason}`);
}

/** A pool that cannot open its connections makes requests wait, and then fail. */
async function checkConnections(
  { environment, client, replicas }: OnlineOptions,
  { facts, warnings }: OnlineFindings,
): Promise<void> {
  const { rows } = await client.query<{ limit: number; used: number }>(CONNECTION_LIMIT);
  const { limit = 0, used = 0 } = rows[0] ?? {};
  const { DATABASE_POOL_MAX: pool, DATABASE_DIRECT_URL, DATABASE_URL } = environment;
  const needed = replicas * (pool + OTHER_CONNECTIONS);
  facts.push(
    `pool    ${replicas} × (${pool} + ${OTHER_CONNECTIONS}) connections needed, ${limit} allowed, ${used} in use by other programs`,
  );
  const isPooled = DATABASE_DIRECT_URL !== undefined && DATABASE_DIRECT_URL !== DATABASE_URL;
  if (isPooled || needed + used <= limit) return;
  warnings.push(
    `${replicas} replicas need up to ${needed} connections. PostgreSQL allows ${limit}, and other programs use ${used}. Lower DATABASE_POOL_MAX, or raise max_connections.`,
  );
}

/** The connection of the change feed, and the connection that checks it. */
const OTHER_CONNECTIONS = 2;

/** How many connections this role may open in this database. Minus one means no limit. */
const CONNECTION_LIMIT = `
  select least(
      current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0),
      (select nullif(rolconnlimit, -1) from pg_roles where rolname = current_user),
      (select nullif(datconnlimit, -1) from pg_database where datname = current_database())
    )::int as limit,
    (select count(*)::int from pg_stat_activity
      where backend_type = 'client backend' and application_name not like 'gatehouse%') as used`;

/** Reads the recorded changes through DATABASE_URL, as the change feed does. */
async function checkFeed(
  { environment, client }: OnlineOptions,
  { facts, faults }: OnlineFindings,
): Promise<void> {
  if (!environment.CHANGE_FEED) return void facts.push('feed    off (CHANGE_FEED=off)');
  const feed = new Client({
    connectionString: environment.DATABASE_URL,
    application_name: 'gatehouse doctor',
    connectionTimeoutMillis: TIMEOUT_MS,
  });
  feed.on('error', () => undefined);
  try {
    const startedAt = performance.now();
    await feed.connect();
    await readChanges(feed, null);
    const ms = Math.ceil(performance.now() - startedAt);
    if ((await readTableFile(feed)) !== (await readTableFile(client))) {
      throw new Error('DATABASE_DIRECT_URL leads to another database than DATABASE_URL');
    }
    facts.push(`feed    the changes were read after ${ms} ms, with the time to connect`);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    faults.push(`The change feed does not work, so nothing is cached: ${message}.`);
  } finally {
    await feed.end().catch(() => undefined);
  }
}

/** The message of `fetch` is only "fetch failed". Its cause has the code of the error. */
function describeFetchError(error: unknown): string {
  const { message, cause } = error as Error;
  const { code = '', message: detail = '' } = (cause ?? {}) as { code?: string; message?: string };
  return FETCH_ERRORS[code] ?? (code === '' ? message : `${detail || message} (${code})`);
}

const FETCH_ERRORS: Record<string, string> = {
  ECONNREFUSED: 'nothing listens at that address (connection refused)',
  ENOTFOUND: 'its host cannot be resolved (DNS)',
  EAI_AGAIN: 'its host cannot be resolved (DNS)',
  CERT_HAS_EXPIRED: 'its TLS certificate has expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its TLS certificate is for another host name',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its TLS certificate is self-signed: set NODE_EXTRA_CA_CERTS',
  SELF_SIGNED_CERT_IN_CHAIN:
    'its TLS certificate is of an unknown authority: set NODE_EXTRA_CA_CERTS',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    'its TLS certificate is of an unknown authority, or the server omits a certificate: set NODE_EXTRA_CA_CERTS',
};

const TIMEOUT_MS = 5000;
const MIN_CERTIFICATE_DAYS = 14;
