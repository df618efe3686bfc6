import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { type Postgres, startPostgres } from '../../tools/postgres.ts';
import { type TestUser, signUp } from '../support/users.ts';
import { runBuilt } from '../support/built-program.ts';

const DATABASE = 'gatehouse';
/** Not a superuser, because connection limits do not apply to superusers. */
export const SERVICE_ROLE = 'gatehouse_service';

/** A real PostgreSQL, a real Better-Auth and users, shared by all faults of a run. */
export class System {
  readonly folder = mkdtempSync(join(tmpdir(), 'gatehouse-faults-'));
  auth!: BetterAuth;
  admin!: TestUser;
  /** Users who read. Their tokens stay valid. */
  readers: TestUser[] = [];
  /** Ids of the changed users. */
  subjects: string[] = [];
  private postgres!: Postgres;
  private operatorClient: Client | undefined;

  async start(): Promise<void> {
    await this.startPostgres();
    await this.postgres.createDatabase(DATABASE);
    const url = this.postgres.url(DATABASE);
    const { code, stderr } = await runBuilt('src/cli/migrate.js', { DATABASE_URL: url });
    if (code !== 0) throw new Error(`The migrations failed: ${stderr}`);
    await this.sql(`create role ${SERVICE_ROLE} login password '${SERVICE_ROLE}'`);
    await this.sql(`grant postgres to ${SERVICE_ROLE}`);
    this.auth = await startBetterAuth({ databaseUrl: url, sid: true });
    this.admin = await signUp(this.auth, 'Grace Hopper');
    await this.sql(`update "user" set role = 'admin' where id = $1`, [this.admin.id]);
    for (let index = 0; index < 4; index += 1) {
      this.readers.push(await signUp(this.auth));
      this.subjects.push((await signUp(this.auth, 'Alan Turing')).id);
    }
  }

  async end(): Promise<void> {
    await this.operatorClient?.end().catch(() => undefined);
    await this.auth?.stop();
    await this.postgres?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Creates new tokens, because a run takes longer than their lifetime. */
  async renewTokens(): Promise<void> {
    for (const person of [this.admin, ...this.readers]) {
      person.token = await this.auth.tokenFor(person.session);
    }
  }

  // ── PostgreSQL ──────────────────────────────────────────────────────────────────────────────

  get port(): number {
    return this.postgres.port;
  }

  /** The database URL of the service, direct or through the port of a proxy. */
  url(port = this.port): string {
    return `postgres://${SERVICE_ROLE}:${SERVICE_ROLE}@127.0.0.1:${port}/${DATABASE}`;
  }

  /** Runs SQL as the operator of the database. */
  async sql<Row extends object = Record<string, unknown>>(
    text: string,
    values?: unknown[],
  ): Promise<Row[]> {
    this.operatorClient ??= await this.connect(() => (this.operatorClient = undefined));
    return (await this.operatorClient.query<Row>(text, values)).rows;
  }

  async endConnectionsOfService(): Promise<void> {
    await this.sql('select pg_terminate_backend(pid) from pg_stat_activity where usename = $1', [
      SERVICE_ROLE,
    ]);
  }

  /** Opens a connection as the operator. */
  async connect(lost: () => void = () => undefined): Promise<Client> {
    const client = new Client({ connectionString: this.postgres.url(DATABASE) });
    client.on('error', lost);
    client.on('end', lost);
    await client.connect();
    return client;
  }

  /** Resolves when it takes connections. */
  async startPostgres(): Promise<void> {
    this.postgres = await startPostgres({
      dataDir: join(this.folder, 'postgres'),
      // Without fsync only a crash of the machine loses data, not a killed process.
      settings: { fsync: 'off', max_connections: '100', max_prepared_transactions: '5' },
    });
  }

  /** Stops PostgreSQL cleanly. */
  stopPostgres(): Promise<void> {
    return this.postgres.stop();
  }

  async killPostgres(): Promise<void> {
    this.signal('SIGKILL');
    await this.postgres.ended;
  }

  /** The kernel still accepts connections, but PostgreSQL does not respond. */
  freezePostgres(): void {
    this.signal('SIGSTOP');
  }

  thawPostgres(): void {
    this.signal('SIGCONT');
  }

  /** Until it answers a query. */
  async untilPostgresAnswers(): Promise<void> {
    for (let attempt = 0; attempt < 1000; attempt += 1) {
      const client = new Client({
        connectionString: this.postgres.url(DATABASE),
        connectionTimeoutMillis: 500,
      });
      client.on('error', () => undefined);
      const answered = await client
        .connect()
        .then(() => client.query('select 1'))
        .then(
          () => true,
          () => false,
        );
      void client.end().catch(() => undefined);
      if (answered) return;
      await sleep(10);
    }
    throw new Error('PostgreSQL has not come back.');
  }

  /** Signals all processes. The server stops first, so that it cannot start new ones. */
  private signal(signal: NodeJS.Signals): void {
    const { pid } = this.postgres;
    process.kill(pid, 'SIGSTOP');
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    for (const each of [pid, ...children.split(' ').filter(Boolean).map(Number)]) {
      process.kill(each, signal);
    }
  }
}
