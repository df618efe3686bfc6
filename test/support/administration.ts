import { Client } from 'pg';
import { until } from './app-process.js';
import type { TestResponse } from './openapi-check.js';
import type { Stack } from './stack.js';
import { claimsOf, signUp, type TestUser } from './users.js';

/** A session in which an admin impersonates a user. */
export interface Impersonation {
  id: string;
  token: string;
  session: string;
  sid: string;
}

/** A statement that locks rows, and its parameters. */
export type RowLock = [sql: string, ...parameters: string[]];

/** What the tests about changes by admins have in common. */
export function administrationOf(getStack: () => Stack) {
  const callUsers = (
    actor: { token: string },
    method: string,
    path: string,
    body?: unknown,
  ): Promise<TestResponse> =>
    getStack().gatehouse.call(`/api/v1/users/${path}`, {
      method,
      token: actor.token,
      ...(body === undefined ? {} : { body }),
    });

  async function newAdmin(auth = getStack().authWithSid): Promise<TestUser> {
    const admin = await signUp(auth, 'Admin');
    await getStack().database.sql(`update "user" set role = 'admin' where id = $1`, [admin.id]);
    return admin;
  }

  async function impersonate(
    admin: TestUser,
    user: TestUser,
    auth = getStack().authWithSid,
  ): Promise<Impersonation> {
    const { session } = await auth.post<{ session: { token: string; id: string } }>(
      '/admin/impersonate-user',
      { userId: user.id },
      admin.session,
    );
    const token = await auth.tokenFor(session.token);
    return { id: user.id, token, session: session.token, sid: session.id };
  }

  /** Returns everything that a change to this user can affect. */
  const stateOf = (id: string) =>
    getStack().database.sql(
      `select to_jsonb(u) as user,
        (select array_agg(s.id order by s.id) from session s where "userId" = u.id) as sessions,
        (select count(*)::int from gatehouse.audit_event where target_user_id = u.id) as events
       from "user" u where id = $1`,
      [id],
    );

  const countLockWaits = async () => {
    const [row] = await getStack().database.sql<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return row?.count;
  };

  /** Sends a change that waits for these locks of another connection. Returns the response. */
  async function whileLocked(
    locks: RowLock[],
    change: () => Promise<TestResponse>,
    meanwhile: () => Promise<unknown>,
  ): Promise<TestResponse> {
    const other = new Client({ connectionString: getStack().database.directUrl });
    await other.connect();
    try {
      await other.query('begin');
      for (const [sql, ...parameters] of locks) await other.query(sql, parameters);
      const response = change();
      await until(countLockWaits, 1);
      await meanwhile();
      await other.query('commit');
      return await response;
    } finally {
      await other.end();
    }
  }

  return { callUsers, newAdmin, impersonate, stateOf, whileLocked };
}

/** Locks the row of a user and those of the user's sessions. */
export const locksOf = ({ id }: { id: string }): RowLock[] => [
  ['select 1 from "user" where id = $1 for update', id],
  ['select 1 from session where "userId" = $1 for update', id],
];

export const sidOf = ({ token }: { token: string }) => String(claimsOf(token)['sid']);
