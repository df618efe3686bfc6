import type { Fault } from './fault.ts';
import type { FaultContext } from './fault-context.ts';

export const killed: Fault = {
  name: 'PostgreSQL killed (SIGKILL)',
  seconds: 4,
  start: (context) => context.serve(),
  inject: ({ system }) => system.killPostgres(),
  expect: expectTruthfulProbes,
  restore: async ({ system }) => {
    await system.startPostgres();
    await system.untilPostgresAnswers();
  },
  afterwards: async (context) => {
    await expectProbes(context, { '/health/ready': 200, '/health/db': 200 });
    for (const message of ['database unavailable', 'database available again']) {
      const count = () => context.lines().filter(({ msg }) => msg === message).length;
      // The log is written asynchronously.
      await context.until(() => count() > 0, 2);
      const times = count();
      context.expect(times === 1, `the log says once that ${message}: ${times} times`);
    }
    const code = context.services[0]?.output.stdout ?? '';
    context.expect(code.includes('ECONNREFUSED'), 'the log says why');
  },
};

export const frozen: Fault = {
  name: 'PostgreSQL stopped (SIGSTOP)',
  seconds: 5,
  start: (context) => context.serve(),
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
  start: (context) => context.serve(),
  inject: ({ system }) => system.stopPostgres(),
  restore: async ({ system }) => {
    await system.startPostgres();
    await system.untilPostgresAnswers();
  },
};

/** Probes must report the outage even if the service has cached users. */
function expectTruthfulProbes(context: FaultContext): Promise<void> {
  return expectProbes(context, {
    '/health/live': 200,
    '/health': 200,
    '/health/ready': 503,
    '/health/db': 503,
  });
}

async function expectProbes(
  context: FaultContext,
  expected: Record<string, number>,
): Promise<void> {
  await Promise.all(
    Object.entries(expected).map(async ([path, status]) => {
      const answer = await context.send(path);
      context.expect(answer.status === status, `${path} is ${status}: ${answer.status}`);
      const withoutRetryAfter =
        answer.status === 503 && answer.headers['retry-after'] === undefined;
      context.expect(!withoutRetryAfter, `${path} has Retry-After`);
    }),
  );
}
