import { Client } from 'pg';
import { type BetterAuth, startBetterAuth } from '../../tools/better-auth.ts';
import { type RunningApp, startApp } from '../support/test-app.js';
import { claimsOf, type TestUser, signUp } from '../support/users.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { runBuilt } from '../support/built-program.js';
import { registerSecret } from '../support/leak-detector.js';
import { until } from '../support/app-process.js';

describe.each([
  ['camel case', {}],
  ['snake case, plural, uuid', { columns: 'snake', plural: true, idType: 'uuid' }],
] as const)('runtime role (%s)', (naming, issuer) => {
  // Roles belong to the cluster, which other spec files use at the same time.
  const suffix = `${process.pid}_${issuer && 'columns' in issuer ? 'snake' : 'camel'}`;
  const [role, stranger] = [`gatehouse_${suffix}`, `auth_${suffix}`];
  const password = 'r7nt1me0nly';
  let database: TestDatabase;
  let auth: BetterAuth;
  let gatehouse: RunningApp;
  let admin: TestUser;
  let ada: TestUser;

  const urlOf = (user: string) => {
    const url = new URL(database.directUrl);
    [url.username, url.password] = [user, password];
    return url.href;
  };
  const migrate = (name = role) =>
    runBuilt('src/cli/migrate.js', {
      DATABASE_URL: database.url,
      DATABASE_RUNTIME_ROLE: name,
    });
  const as = async (user: string, ...statements: string[]) => {
    const client = new Client({ connectionString: urlOf(user) });
    await client.connect();
    try {
      for (const statement of statements) await client.query(statement);
    } finally {
      await client.end();
    }
  };
  const tables = 'columns' in issuer ? ['users', 'sessions'] : ['"user"', 'session'];

  beforeAll(async () => {
    registerSecret('a password', password);
    database = await createDatabase({ empty: true });
    auth = await startBetterAuth({
      databaseUrl: database.directUrl,
      migrate: true,
      sid: true,
      ...issuer,
    });
    await database.sql(`create role ${role} login password '${password}'`);
    await database.sql(`create role ${stranger} login password '${password}'`);
    expect(await migrate()).toMatchObject({
      code: 0,
      stderr: '',
      stdout: expect.stringContaining(`applied the grants of role "${role}"`),
    });
    gatehouse = await startApp({ DATABASE_URL: urlOf(role), BETTER_AUTH_URL: auth.origin });
    [admin, ada] = [await signUp(auth), await signUp(auth)];
    await database.sql(`update ${tables[0]} set role = 'admin' where id = $1`, [admin.id]);
  }, 60_000);

  afterAll(async () => {
    await gatehouse?.close();
    await auth?.stop();
    for (const name of [role, stranger]) await database?.sql(`drop owned by ${name}`);
    for (const name of [role, stranger]) await database?.sql(`drop role ${name}`);
    await database?.drop();
  });

  it(`serves every route with the runtime role (${naming})`, async () => {
    const ask = async (method: string, path: string, body?: object, by = admin) => {
      const answer = await gatehouse.call(path, {
        method,
        token: by.token,
        ...(body === undefined ? {} : { body }),
      });
      return [`${method} ${path}`, answer.status];
    };
    const users = '/api/v1/users';
    const sid = String(claimsOf(ada.token)['sid']);
    const answers = [
      await ask('GET', '/health/ready'),
      await ask('GET', '/api/v1/auth/me'),
      await ask('GET', '/api/v1/auth/session'),
      await ask('GET', '/api/v1/auth/accounts'),
      await ask('GET', `${users}?q=ada&role=user&banned=false&sort=name`),
      await ask('GET', `${users}/${ada.id}`),
      await ask('PATCH', `${users}/${ada.id}`, { name: 'Countess', image: null }),
      await ask('PATCH', `${users}/${ada.id}`, { name: 'Ada' }, ada),
      await ask('PUT', `${users}/${ada.id}/role`, { role: 'admin' }),
      await ask('PUT', `${users}/${ada.id}/role`, { role: 'user' }),
      await ask('GET', `${users}/${ada.id}/sessions`),
      await ask('GET', `${users}/${ada.id}/accounts`),
      await ask('DELETE', `${users}/${ada.id}/sessions/${sid}`),
      await ask('DELETE', `${users}/${ada.id}/sessions`),
      await ask('POST', `${users}/${ada.id}/ban`, { reason: 'spam' }),
      await ask('DELETE', `${users}/${ada.id}/ban`),
      await ask('GET', '/api/v1/audit-events'),
      await ask('GET', '/health/db'),
    ];
    expect(answers.filter(([, status]) => status !== 200)).toEqual([]);
    const [row] = await database.sql('select count(*)::int as events from gatehouse.audit_event');
    expect(row).toEqual({ events: 8 });
  });

  it(`receives changes that another role makes with ordinary grants (${naming})`, async () => {
    const eve = await signUp(auth);
    const status = async () =>
      (await gatehouse.call('/api/v1/auth/me', { token: eve.token })).status;
    await until(
      async () => (await gatehouse.http.get('/health')).body.parts.changeFeed.status,
      'up',
    );
    expect(await status()).toBe(200);
    await database.sql(`grant select, update on ${tables[0]} to ${stranger}`);
    await expect(as(stranger, 'select from gatehouse.change')).rejects.toMatchObject({
      code: '42501',
    });
    await as(stranger, `update ${tables[0]} set banned = true where id = '${eve.id}'`);
    await until(status, 403);
  });

  it.each([
    `update gatehouse.audit_event set reason = 'x'`,
    'delete from gatehouse.audit_event',
    'truncate gatehouse.audit_event',
    'drop table gatehouse.audit_event',
    'alter table gatehouse.audit_event rename to other',
    'alter table gatehouse.audit_event disable trigger audit_event_append_only',
    'alter table gatehouse.audit_event disable trigger all',
    'drop trigger audit_event_append_only on gatehouse.audit_event',
    'drop function gatehouse.refuse_change() cascade',
    `create or replace function gatehouse.refuse_change() returns trigger language plpgsql as 'begin return null; end'`,
    'create rule r as on insert to gatehouse.audit_event do instead nothing',
    'create table gatehouse.other ()',
    'drop schema gatehouse cascade',
    'set session_replication_role = replica',
    `insert into gatehouse.migration (name) values ('x')`,
    'truncate gatehouse.change',
    'update gatehouse.change set user_id = null',
    'drop table gatehouse.change',
    'create trigger t after insert on gatehouse.change execute function gatehouse.record_user_change()',
    'delete from gatehouse.migration',
    'select password from account',
    'select token from session',
    'select * from session',
    'insert into session default values',
    `update "user" set email = 'x'`,
    'delete from "user"',
  ])(`denies this statement to the runtime role (${naming}): %s`, async (statement) => {
    const physical = statement
      .replace(/"user"/, tables[0] as string)
      .replace(/\bsession\b/, tables[1] as string)
      .replace('from account', 'columns' in issuer ? 'from accounts' : 'from account');
    await expect(as(role, physical)).rejects.toMatchObject({ code: '42501' });
  });

  it(`revokes extra grants of the runtime role when it migrates (${naming})`, async () => {
    await database.sql(`grant all on gatehouse.audit_event, ${tables.join()} to ${role}`);
    expect((await migrate()).code).toBe(0);
    for (const statement of [
      'delete from gatehouse.audit_event',
      `select token from ${tables[1]}`,
      `delete from ${tables[0]}`,
    ]) {
      await expect(as(role, statement)).rejects.toMatchObject({ code: '42501' });
    }
    await as(role, 'select 1 from gatehouse.audit_event');
  });

  it.each([
    ['is missing', () => 'no_such_role', 'There is no role'],
    ['runs the migration', () => new URL(database.directUrl).username, 'superuser'],
  ])(`refuses to migrate with a runtime role that %s (${naming})`, async (_why, name, message) => {
    const { code, stderr } = await migrate(name());
    expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
  });

  const owns = 'owns the audit table';
  it.each([
    ['a superuser', `alter role $ superuser`, 'superuser'],
    ['a role that may create roles', `alter role $ createrole`, 'superuser'],
    ['a role that may write files of the server', 'grant pg_write_server_files to $', 'superuser'],
    ['a role that may run programs', 'grant pg_execute_server_program to $', 'superuser'],
    ['the owner of the audit table', 'alter table gatehouse.audit_event owner to $', owns],
    ['the owner of its schema', 'alter schema gatehouse owner to $', owns],
    ['the owner of its function', 'alter function gatehouse.refuse_change() owner to $', owns],
    ['the owner of the database', 'alter database % owner to $', owns],
  ])(
    `refuses to migrate with a runtime role that is %s, or a member of one (${naming})`,
    async (_what, make, message) => {
      const [group, member] = [`group_${suffix}`, `member_${suffix}`];
      const owner = new URL(database.directUrl).username;
      const name = new URL(database.directUrl).pathname.slice(1);
      await database.sql(`create role ${group}; create role ${member} noinherit in role ${group}`);
      try {
        await database.sql(make.replace('$', group).replace('%', name));
        for (const refused of [group, member]) {
          const { code, stderr } = await migrate(refused);
          expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
        }
      } finally {
        await database.sql(`reassign owned by ${group} to ${owner}`);
        for (const created of [member, group]) {
          await database.sql(`drop owned by ${created}; drop role ${created}`);
        }
      }
    },
  );
});
