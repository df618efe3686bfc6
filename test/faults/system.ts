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
/** The service is no superuser, for whom PostgreSQL keeps connections back and limits none. */
export const SERVICE_ROLE = 'gatehouse_service';

/** What the service stands on, for the whole run: a real PostgreSQL, a real Better-Auth, and people. */
export class System {
  readonly folder = mkdtempSync(join(tmpdir(), 'gatehouse-faults-'));
  auth!: BetterAuth;
  admin!: TestUser;
  /** Who reads: their tokens are honest all the time. */
  readers: TestUser[] = [];
  /** Who is changed. */
  subjects: string[] = [];
  private postgres!: Postgres;
  private hand: Client | undefined;

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
    for (let each = 0; each < 4; each += 1) {
      this.readers.push(await signUp(this.auth));
      this.subjects.push((await signUp(this.auth, 'Alan Turing')).id);
    }
  }

  async end(): Promise<void> {
    await this.hand?.end().catch(() => undefined);
    await this.auth?.stop();
    await this.postgres?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Fresh tokens: a run takes longer than one is good for. */
  async renewTokens(): Promise<void> {
    for (const person of [this.admin, ...this.readers]) {
      person.token = await this.auth.tokenFor(person.session);
    }
  }

  // ── PostgreSQL ──────────────────────────────────────────────────────────────────────────────

  get port(): number {
    return this.postgres.port;
  }

  /** The database as the service knows it, at its own port or at the port of something before it. */
  url(port = this.port): string {
    return `postgres://${SERVICE_ROLE}:${SERVICE_ROLE}@127.0.0.1:${port}/${DATABASE}`;
  }

  /** SQL by hand, as its operator would run it. */
  async sql<Row extends object = Record<string, unknown>>(
    text: string,
    values?: unknown[],
  ): Promise<Row[]> {
    this.hand ??= await this.connect(() => (this.hand = undefined));
    return (await this.hand.query<Row>(text, values)).rows;
  }

  async endConnectionsOfService(): Promise<void> {
    await this.sql('select pg_terminate_backend(pid) from pg_stat_activity where usename = $1', [
      SERVICE_ROLE,
    ]);
  }

  /** A connection of its operator's own. */
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
      // A killed process loses nothing that it has written; only a killed machine would.
      settings: { fsync: 'off', max_connections: '100' },
    });
  }

  /** In order, as an operator restarts it. */
  stopPostgres(): Promise<void> {
    return this.postgres.stop();
  }

  async killPostgres(): Promise<void> {
    this.signal('SIGKILL');
    await this.postgres.ended;
  }

  /** It takes connections (the kernel does) and says nothing. */
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

  /** All of its processes. The server is stopped first, so that it starts nobody whom the signal misses. */
  private signal(signal: NodeJS.Signals): void {
    const { pid } = this.postgres;
    process.kill(pid, 'SIGSTOP');
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    for (const each of [pid, ...children.split(' ').filter(Boolean).map(Number)]) {
      process.kill(each, signal);
    }
  }
}
