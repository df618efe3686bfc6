import type { Fault } from './fault.ts';
import type { Stage } from './stage.ts';

export const killed: Fault = {
  name: 'PostgreSQL killed (SIGKILL)',
  seconds: 4,
  start: (stage) => stage.serve(),
  inject: ({ system }) => system.killPostgres(),
  expect: expectTruthfulProbes,
  restore: async ({ system }) => {
    await system.startPostgres();
    await system.untilPostgresAnswers();
  },
  afterwards: async (stage) => {
    await expectProbes(stage, { '/health/ready': 200, '/health/db': 200 });
    for (const told of ['database unavailable', 'database available again']) {
      const count = () => stage.lines().filter(({ msg }) => msg === told).length;
      // A log is written behind the back of the requests.
      await stage.until(() => count() > 0, 2);
      const times = count();
      stage.expect(times === 1, `the log says once that ${told}: ${times} times`);
    }
    const said = stage.services[0]?.output.stdout ?? '';
    stage.expect(said.includes('ECONNREFUSED'), 'the log says why');
  },
};

export const frozen: Fault = {
  name: 'PostgreSQL stopped (SIGSTOP)',
  seconds: 5,
  start: (stage) => stage.serve(),
  inject: ({ system }) => system.freezePostgres(),
  expect: expectTruthfulProbes,
  restore: async ({ system }) => {
    system.thawPostgres();
    await system.untilPostgresAnswers();
  },
};

export const restarted: Fault = {
  name: 'PostgreSQL restarted',
  seconds: 1,
  start: (stage) => stage.serve(),
  inject: ({ system }) => system.stopPostgres(),
  restore: async ({ system }) => {
    await system.startPostgres();
    await system.untilPostgresAnswers();
  },
};

/** Its memory of who is who, where it has one, must not make a probe say what is not so. */
function expectTruthfulProbes(stage: Stage): Promise<void> {
  return expectProbes(stage, {
    '/health/live': 200,
    '/health': 200,
    '/health/ready': 503,
    '/health/db': 503,
  });
}

async function expectProbes(stage: Stage, wanted: Record<string, number>): Promise<void> {
  await Promise.all(
    Object.entries(wanted).map(async ([path, status]) => {
      const answer = await stage.ask(path);
      stage.expect(answer.status === status, `${path} is ${status}: ${answer.status}`);
      const bare = answer.status === 503 && answer.headers['retry-after'] === undefined;
      stage.expect(!bare, `${path} says when to come back`);
    }),
  );
}
