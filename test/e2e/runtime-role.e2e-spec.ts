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
] as const)('database role of the service (%s)', (naming, issuer) => {
  // Other spec files use the same cluster, and roles belong to the cluster.
  const suffix = `${process.pid}_${issuer && 'columns' in issuer ? 'snake' : 'camel'}`;
  const [role, otherRole] = [`gatehouse_${suffix}`, `auth_${suffix}`];
  const [memberRole, makerRole] = [`member_${suffix}`, `maker_${suffix}`];
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
  const runAs = async (user: string, ...statements: string[]) => {
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
    await database.sql(`create role ${otherRole} login password '${password}'`);
    await database.sql(`create role ${makerRole} createrole`);
    await database.sql(`create role ${memberRole} login in role ${makerRole}`);
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
    for (const name of [role, otherRole]) await database?.sql(`drop owned by ${name}`);
    for (const name of [role, otherRole, memberRole, makerRole]) {
      await database?.sql(`drop role ${name}`);
    }
    await database?.drop();
  });

  it(`serves every route with the runtime role (${naming})`, async () => {
    const request = async (method: string, path: string, body?: object, actor = admin) => {
      const response = await gatehouse.call(path, {
        method,
        token: actor.token,
        ...(body === undefined ? {} : { body }),
      });
      return [`${method} ${path}`, response.status];
    };
    const users = '/api/v1/users';
    const sid = String(claimsOf(ada.token)['sid']);
    const responses = [
      await request('GET', '/health/ready'),
      await request('GET', '/api/v1/auth/me'),
      await request('GET', '/api/v1/auth/session'),
      await request('GET', '/api/v1/auth/accounts'),
      await request('GET', `${users}?q=ada&role=user&banned=false&sort=name`),
      await request('GET', `${users}/${ada.id}`),
      await request('PATCH', `${users}/${ada.id}`, { name: 'Countess', image: null }),
      await request('PATCH', `${users}/${ada.id}`, { name: 'Ada' }, ada),
      await request('PUT', `${users}/${ada.id}/role`, { role: 'admin' }),
      await request('PUT', `${users}/${ada.id}/role`, { role: 'user' }),
      await request('GET', `${users}/${ada.id}/sessions`),
      await request('GET', `${users}/${ada.id}/accounts`),
      await request('DELETE', `${users}/${ada.id}/sessions/${sid}`),
      await request('DELETE', `${users}/${ada.id}/sessions`),
      await request('POST', `${users}/${ada.id}/ban`, { reason: 'spam' }),
      await request('DELETE', `${users}/${ada.id}/ban`),
      await request('GET', '/api/v1/audit-events'),
      await request('GET', '/health/db'),
    ];
    expect(responses.filter(([, status]) => status !== 200)).toEqual([]);
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
    await database.sql(`grant select, update on ${tables[0]} to ${otherRole}`);
    await runAs(otherRole, `update ${tables[0]} set banned = true where id = '${eve.id}'`);
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
    'delete from gatehouse.migration',
    'select password from account',
    'insert into session default values',
    `update "user" set email = 'x'`,
    'delete from "user"',
  ])(`denies this statement to the runtime role (${naming}): %s`, async (statement) => {
    const physical = statement
      .replace(/"user"/, tables[0] as string)
      .replace(/\bsession default/, `${tables[1]} default`)
      .replace('from account', 'columns' in issuer ? 'from accounts' : 'from account');
    await expect(runAs(role, physical)).rejects.toThrow(/permission denied|must be owner/);
  });

  it(`revokes extra grants of the runtime role on the audit table when it migrates (${naming})`, async () => {
    await database.sql(`grant all on gatehouse.audit_event to ${role}`);
    expect((await migrate()).code).toBe(0);
    await expect(runAs(role, 'delete from gatehouse.audit_event')).rejects.toThrow(
      /permission denied/,
    );
    await runAs(role, 'select 1 from gatehouse.audit_event');
  });

  it.each([
    ['is missing', () => 'no_such_role', 'There is no role'],
    ['runs the migration', () => new URL(database.directUrl).username, 'superuser'],
    ['is a member of a role that may create roles', () => memberRole, 'superuser'],
    ['owns the audit table', () => otherRole, 'owns the audit table'],
  ])(`refuses to migrate with a runtime role that %s (${naming})`, async (_why, name, message) => {
    if (name() === otherRole) {
      await database.sql(`alter table gatehouse.audit_event owner to ${otherRole}`);
    }
    const { code, stderr } = await migrate(name());
    expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
  });
});
