import { setTimeout as sleep } from 'node:timers/promises';
import { type TestUser, signUp } from '../support/users.ts';
import type { Fault } from './fault.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

let proxy: TcpProxy;
let victims: TestUser[];

/**
 * With a change feed, answers may come from memory as long as notifications arrive. Where they do not,
 * nothing may: a ban that was written meanwhile, here by hand, is in force at the next request.
 */
export const notificationsCut: Fault = {
  name: 'notification connection cut while bans are written',
  answers: [200],
  seconds: 0,
  start: async (stage) => {
    proxy = await startTcpProxy(() => stage.system.port);
    stage.onClose(() => proxy.close());
    await stage.serve({ CHANGE_FEED: 'on', DATABASE_DIRECT_URL: stage.system.url(proxy.port) });
    victims = [];
    for (let each = 0; each < 3; each += 1) victims.push(await signUp(stage.system.auth));
    if (proxy.opened === 0) {
      stage.note('the service listens to no notifications: this shows that it asks each time');
    }
  },
  inject: async (stage) => {
    for (const victim of victims) {
      const ask = () => stage.ask('/api/v1/auth/me', { token: victim.token });
      for (let time = 0; time < 5; time += 1) {
        const { status } = await ask();
        stage.expect(status === 200, `who is not banned is let in: ${status}`);
      }
      proxy.cut = true;
      proxy.resetAll();
      await stage.system.sql('update "user" set banned = true where id = $1', [victim.id]);
      // The reset and the request come by different ways: which is read first is anybody's guess.
      const seen = await stage.until(async () => (await ask()).status === 403);
      stage.note(`refused ${Math.round(seen)} ms after the ban`);
      stage.expect(seen < 250, `a ban is seen at once: ${Math.round(seen)} ms`);
      await stage.system.sql('update "user" set banned = false where id = $1', [victim.id]);
      const { status } = await ask();
      stage.expect(status === 200, `nothing is remembered meanwhile: ${status}`);
      proxy.cut = false;
      // Long enough for it to listen again, and to remember again.
      await sleep(2000);
    }
  },
  restore: () => {
    proxy.cut = false;
  },
  afterwards: async (stage) => {
    for (const { id, token } of victims) {
      await stage.ask('/api/v1/auth/me', { token });
      await stage.system.sql('update "user" set banned = true where id = $1', [id]);
      const seen = await stage.until(
        async () => (await stage.ask('/api/v1/auth/me', { token })).status === 403,
      );
      stage.expect(seen < 1000, `notified again, it knows at once: ${Math.round(seen)} ms`);
    }
  },
};
