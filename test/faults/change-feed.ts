import { setTimeout as sleep } from 'node:timers/promises';
import { type TestUser, signUp } from '../support/users.ts';
import type { Fault } from './fault.ts';
import { FEED_CONNECTION, startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

let proxy: TcpProxy;
let bannedUsers: TestUser[];

/**
 * The service may use its cache only while it reads the recorded changes. Without them, a ban
 * written by SQL must be in force at the next request.
 */
export const feedCut: Fault = {
  name: 'connection of the change feed cut while bans are written',
  answers: [200],
  seconds: 0,
  start: async (context) => {
    proxy = await startTcpProxy(() => context.system.port, FEED_CONNECTION);
    context.onClose(() => proxy.close());
    await context.serve({ CHANGE_FEED: 'on', DATABASE_URL: context.system.url(proxy.port) });
    bannedUsers = [];
    for (let index = 0; index < 3; index += 1) bannedUsers.push(await signUp(context.system.auth));
    if (proxy.opened === 0) {
      context.note(
        'the service reads no recorded changes: this tests only that it reads users each time',
      );
    }
  },
  inject: async (context) => {
    for (const user of bannedUsers) {
      const ask = () => context.send('/api/v1/auth/me', { token: user.token });
      for (let time = 0; time < 5; time += 1) {
        const { status } = await ask();
        context.expect(status === 200, `a user who is not banned is accepted: ${status}`);
      }
      proxy.cut = true;
      proxy.resetAll();
      await context.system.sql('update "user" set banned = true where id = $1', [user.id]);
      // The reset and the request arrive on different connections, in either order.
      const seen = await context.until(async () => (await ask()).status === 403);
      context.note(`refused ${Math.round(seen)} ms after the ban`);
      context.expect(seen < 250, `a ban is in force at once: ${Math.round(seen)} ms`);
      await context.system.sql('update "user" set banned = false where id = $1', [user.id]);
      const { status } = await ask();
      context.expect(status === 200, `nothing is cached without the feed: ${status}`);
      proxy.cut = false;
      // The feed needs time to reconnect and to enable the cache.
      await sleep(2000);
    }
  },
  restore: () => {
    proxy.cut = false;
  },
  afterwards: async (context) => {
    for (const { id, token } of bannedUsers) {
      await context.send('/api/v1/auth/me', { token });
      await context.system.sql('update "user" set banned = true where id = $1', [id]);
      const seen = await context.until(
        async () => (await context.send('/api/v1/auth/me', { token })).status === 403,
      );
      context.expect(
        seen < 1000,
        `a ban is in force at once after the reconnect: ${Math.round(seen)} ms`,
      );
    }
  },
};
