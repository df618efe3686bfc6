import { encodeCursor } from '../../src/validation/cursor.js';
import { idsByCursor } from '../support/list-pages.js';
import { type TestUser, signUp } from '../support/users.js';
import { type Stack, startStack } from '../support/stack.js';

let stack: Stack;
let admin: TestUser;
let ada: TestUser;

beforeAll(async () => {
  stack = await startStack();
  [admin, ada] = [await signUp(stack.authWithSid), await signUp(stack.authWithSid)];
  await stack.database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
  const change = (method: string, path: string, body?: unknown) =>
    stack.gatehouse.call(`/api/v1/users/${ada.id}${path}`, {
      method,
      token: admin.token,
      headers: {
        'user-agent': 'curl/8',
        'x-request-id': `r-${method}${path.replaceAll('/', '-')}`,
      },
      ...(body === undefined ? {} : { body }),
    });
  await change('PATCH', '', { name: 'Countess' });
  await change('POST', '/ban', { reason: 'spam' });
  await change('DELETE', '/ban');
});
afterAll(() => stack.end());

const list = (query = '', token = admin.token) =>
  stack.gatehouse.call(`/api/v1/audit-events${query}`, { token });

const actionsOf = (body: { items: { action: string }[] }) => body.items.map(({ action }) => action);

it('lists who changed what, when, from where and why, newest first', async () => {
  const { status, body } = await list();
  expect(status).toBe(200);
  expect(actionsOf(body)).toEqual(['user.unbanned', 'user.banned', 'user.updated']);
  expect(body.items[1]).toEqual({
    id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7/),
    at: expect.any(String),
    action: 'user.banned',
    actorId: admin.id,
    actor: { id: admin.id, name: 'Ada Lovelace', email: admin.email },
    impersonatorId: null,
    impersonator: null,
    targetUserId: ada.id,
    target: { id: ada.id, name: 'Countess', email: ada.email },
    before: { banned: false, banReason: null },
    after: { banned: true, banReason: 'spam' },
    reason: 'spam',
    requestId: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4/),
    clientRequestId: 'r-POST-ban',
    ip: '127.0.0.1',
    userAgent: 'curl/8',
  });
});

it('allows only admins to list audit events', async () => {
  const eve = await signUp(stack.auth);
  expect((await list('', eve.token)).status).toBe(403);
  expect((await list('', '')).status).toBe(401);
});

it.each([
  ['action=user.banned', ['user.banned']],
  ['actorId=nobody', []],
  [
    'from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z',
    ['user.unbanned', 'user.banned', 'user.updated'],
  ],
  ['to=2000-01-01T00:00:00Z', []],
])('filters audit events by ?%s', async (query, actions) => {
  expect(actionsOf((await list(`?${query}`)).body)).toEqual(actions);
});

it.each([
  ['action=user.deleted', 'action'],
  ['limit=0', 'limit'],
  ['cursor=x.y', 'cursor'],
  [`cursor=${encodeCursor({ sort: '-id', value: 'x', id: 'x' })}`, 'cursor'],
  ['from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z', 'from'],
  ['actorId=%00', 'actorId'],
  ['who=me', 'who'],
])('rejects a list of audit events with ?%s and names the field', async (query, field) => {
  const { status, body } = await list(`?${query}`);
  expect([status, body.errors[0].field]).toEqual([400, field]);
});

describe('pages and exports of many events', () => {
  beforeAll(() =>
    stack.database.sql(`
      insert into gatehouse.audit_event (id, at, action, actor_id, target_user_id, request_id)
      select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, '2020-01-01', 'user.updated', 'a', 'b', 'r'
      from generate_series(1, 2345) n`),
  );

  it('returns each audit event once to a client that follows the cursors', async () => {
    const ids = await idsByCursor((cursor) => list(`?actorId=a&limit=100${cursor}`), 5000);
    expect(ids).toHaveLength(2345);
    expect(new Set(ids).size).toBe(2345);
  });

  it('exports all audit events in the order of the list, one per line', async () => {
    const response = await fetch(`${stack.gatehouse.url}/api/v1/audit-events?actorId=a`, {
      headers: { authorization: `Bearer ${admin.token}`, accept: 'application/x-ndjson' },
    });
    expect(response.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = (await response.text()).trimEnd().split('\n');
    expect(lines).toHaveLength(2345);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ actorId: 'a', action: 'user.updated' });
  });

  it('returns an empty export when no event matches, and a problem for a wrong filter', async () => {
    const headers = { authorization: `Bearer ${admin.token}`, accept: 'application/x-ndjson' };
    const empty = await fetch(`${stack.gatehouse.url}/api/v1/audit-events?actorId=none`, {
      headers,
    });
    expect([empty.status, await empty.text()]).toEqual([200, '']);
    const wrong = await fetch(`${stack.gatehouse.url}/api/v1/audit-events?limit=x`, { headers });
    expect([wrong.status, wrong.headers.get('content-type')]).toEqual([
      400,
      expect.stringContaining('application/problem+json'),
    ]);
  });
});

it('records a unique request id for each change even when a client repeats its own id', async () => {
  await list();
  const headers = { 'x-request-id': 'repeated' };
  const change = (body: object, extraHeaders = {}) =>
    stack.gatehouse.call(`/api/v1/users/${ada.id}`, {
      method: 'PATCH',
      token: admin.token,
      headers: extraHeaders,
      body,
    });
  await change({ name: 'One' }, headers);
  await change({ name: 'Two' }, headers);
  await change({ name: 'Three' });
  const items = (await list('?limit=3')).body.items as Record<string, string>[];
  expect(items.map(({ clientRequestId }) => clientRequestId)).toEqual([
    null,
    'repeated',
    'repeated',
  ]);
  expect(new Set(items.map(({ requestId }) => requestId)).size).toBe(3);
  const logged = stack.gatehouse.lines.filter(({ msg }) => msg === 'request');
  for (const { requestId, clientRequestId } of items) {
    const [line, ...others] = logged.filter((candidate) => candidate['requestId'] === requestId);
    expect([line?.['clientRequestId'] ?? null, others]).toEqual([clientRequestId, []]);
  }
});

it('shows the beginning of long names, and null for a user who was deleted', async () => {
  const [long, gone] = [await signUp(stack.auth), await signUp(stack.auth)];
  for (const { id } of [long, gone]) {
    const options = { method: 'PATCH', token: admin.token, body: { name: 'Grace' } };
    await stack.gatehouse.call(`/api/v1/users/${id}`, options);
  }
  await stack.database.sql(
    `update "user" set name = repeat('n', 5000), email = repeat('e', 5000) where id = $1`,
    [long.id],
  );
  await stack.database.sql('delete from "user" where id = $1', [gone.id]);
  const [ofGone, ofLong] = (await list('?limit=2')).body.items;
  expect(ofGone).toMatchObject({ targetUserId: gone.id, target: null, actor: { id: admin.id } });
  expect(ofLong.target).toEqual({
    id: long.id,
    name: 'n'.repeat(255),
    email: 'e'.repeat(320),
  });
  const exported = await fetch(`${stack.gatehouse.url}/api/v1/audit-events?actorId=${admin.id}`, {
    headers: { authorization: `Bearer ${admin.token}`, accept: 'application/x-ndjson' },
  });
  const lines = (await exported.text()).trimEnd().split('\n');
  expect(lines.slice(0, 2).map((line) => JSON.parse(line))).toEqual([ofGone, ofLong]);
});
