import { Client } from 'pg';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { type ProgramResult, runBuilt } from '../support/built-program.js';
import { migrate } from '../../src/cli/migrate.js';
import { LOCKS } from '../../src/database/advisory-locks.js';
import { parseEnvironment } from '../../src/config/environment.js';

let database: TestDatabase;

beforeEach(async () => {
  database = await createDatabase();
  await database.sql(`insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
    values ('ada', 'Ada', 'ada@example.com', true, now(), now())`);
});
afterEach(() => database.drop());

const housekeeping = (args: string[], url = database.url) =>
  runBuilt(
    'src/cli/housekeeping.js',
    { NODE_ENV: 'production', DATABASE_URL: url, BETTER_AUTH_URL: 'http://127.0.0.1:9' },
    args,
  );

/** The only line of output, parsed. */
function resultOf({ code, stdout, stderr }: ProgramResult): Record<string, unknown> {
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const lines = stdout.split('\n').filter(Boolean);
  expect(lines).toHaveLength(1);
  const { sessions, auditEvents, dryRun, skipped, msg } = JSON.parse(lines[0] ?? '') as Record<
    string,
    unknown
  >;
  return { sessions, auditEvents, dryRun, skipped, msg };
}

const addSessions = (count: number, id: string, expiresAt: string) =>
  database.sql(`insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
    select '${id}' || n, '${id}-token-' || n, 'ada', ${expiresAt}, now(), now() from generate_series(1, ${count}) n`);

const addEvents = (count: number, at: string) =>
  database.sql(`insert into gatehouse.audit_event (id, at, action, actor_id, target_user_id, request_id)
    select gen_random_uuid(), ${at}, 'user.banned', 'ada', 'ada', 'r' from generate_series(1, ${count}) n`);

const remaining = async () => {
  const [row] = await database.sql(`select (select count(*)::int from session) as sessions,
    (select count(*)::int from gatehouse.audit_event) as events`);
  return row;
};

it('deletes nothing without an option that names rows', async () => {
  await addSessions(1, 'old', `now() - interval '400 days'`);
  await addEvents(1, `now() - interval '400 days'`);
  const outcomes = await Promise.all(
    [['--dry-run'], ['--sessions-older-than', '0'], ['--audit-older-than', '30'], ['--all']].map(
      (args) => housekeeping(args),
    ),
  );
  for (const { code, stdout, stderr } of outcomes) {
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^Deletes old rows/);
  }
  expect(await remaining()).toEqual({ sessions: 1, events: 1 });
});

it('deletes sessions that expired long enough ago in batches, and no other session', async () => {
  await addSessions(2500, 'old', `now() - interval '31 days'`);
  await addSessions(40, 'young', `now() - interval '29 days'`);
  await addSessions(2, 'valid', `now() + interval '1 day'`);
  const args = ['--sessions-older-than', '30'];
  expect(resultOf(await housekeeping([...args, '--dry-run']))).toEqual({
    sessions: 2500,
    dryRun: true,
    msg: 'would delete',
  });
  expect(await remaining()).toMatchObject({ sessions: 2542 });
  expect(resultOf(await housekeeping(args))).toEqual({ sessions: 2500, msg: 'deleted' });
  expect(resultOf(await housekeeping(args))).toEqual({ sessions: 0, msg: 'deleted' });
  expect(await remaining()).toEqual({ sessions: 42, events: 0 });
});

it('deletes old audit events, and keeps younger ones', async () => {
  await addEvents(1200, `now() - interval '366 days'`);
  await addEvents(3, `now() - interval '364 days'`);
  const args = ['--audit-older-than', '365'];
  expect(resultOf(await housekeeping([...args, '--dry-run']))).toMatchObject({ auditEvents: 1200 });
  expect(await remaining()).toMatchObject({ events: 1203 });
  expect(resultOf(await housekeeping(args))).toEqual({ auditEvents: 1200, msg: 'deleted' });
  expect(await remaining()).toMatchObject({ events: 3 });
});

it.each([
  ['without the setting', '', `now() - interval '400 days'`],
  [
    'that is younger than the setting',
    `set gatehouse.audit_retention = '2020-01-01'`,
    `now() - interval '400 days'`,
  ],
  [
    'of the last 30 days',
    `set gatehouse.audit_retention = 'infinity'`,
    `now() - interval '29 days'`,
  ],
])('refuses the deletion of an audit event %s, even to the owner', async (_what, setting, at) => {
  await addEvents(1, at);
  if (setting !== '') await database.sql(setting);
  await expect(database.sql('delete from gatehouse.audit_event')).rejects.toThrow('audit events');
  await expect(database.sql(`update gatehouse.audit_event set reason = 'x'`)).rejects.toThrow(
    'never changed',
  );
  await expect(database.sql('truncate gatehouse.audit_event')).rejects.toThrow('never changed');
  expect(await remaining()).toMatchObject({ events: 1 });
});

it('ends at once and deletes nothing while another run is active', async () => {
  await addSessions(1, 'old', `now() - interval '31 days'`);
  const other = new Client({ connectionString: database.directUrl });
  await other.connect();
  await other.query('select pg_advisory_lock($1)', [LOCKS.housekeeping]);
  const args = ['--sessions-older-than', '30'];
  expect(resultOf(await housekeeping(args))).toMatchObject({ skipped: 'another run is active' });
  expect(await remaining()).toMatchObject({ sessions: 1 });
  await other.end();
  expect(resultOf(await housekeeping(args))).toMatchObject({ sessions: 1 });
});

it('deletes sessions but no audit event as the role of the running service', async () => {
  const url = new URL(database.directUrl);
  const role = `runtime_${url.pathname.slice(1)}`;
  await database.sql(`create role ${role} login password 'correct-horse-battery'`);
  await migrate(
    parseEnvironment({ DATABASE_URL: database.directUrl, DATABASE_RUNTIME_ROLE: role }),
  );
  await addSessions(1, 'old', `now() - interval '400 days'`);
  await addEvents(1, `now() - interval '400 days'`);
  Object.assign(url, { username: role, password: 'correct-horse-battery' });
  const sessions = await housekeeping(['--sessions-older-than', '30'], url.href);
  expect(resultOf(sessions)).toEqual({ sessions: 1, msg: 'deleted' });
  const { code, stderr } = await housekeeping(['--audit-older-than', '365'], url.href);
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: expect.stringMatching(
      /^PostgreSQL returned an error: permission denied for table audit_event/,
    ),
  });
  expect(await remaining()).toEqual({ sessions: 0, events: 1 });
  await database.sql(`drop owned by ${role}; drop role ${role}`);
});
