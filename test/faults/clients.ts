import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault.ts';
import type { Answer } from './http-client.ts';
import { expectAll } from './issuer.ts';
import type { FaultContext } from './fault-context.ts';

/** Bad clients must not affect the others. */
const UNHARMED = { answers: [200] };

let sockets: Socket[] = [];
let byteTimer: NodeJS.Timeout;
let closed = 0;

async function openSockets(context: FaultContext, count: number, first: string): Promise<void> {
  const port = context.services[0]?.port ?? 0;
  sockets = [];
  closed = 0;
  for (let index = 0; index < count; index += 1) {
    const socket = connect(port, '127.0.0.1', () => socket.write(first));
    socket.on('error', () => undefined);
    socket.on('close', () => (closed += 1));
    socket.resume();
    sockets.push(socket);
    // Opens connections in small groups, because the backlog of the server is limited.
    if (index % 200 === 199) await sleep(20);
  }
  await context.until(() => sockets.every((socket) => !socket.connecting));
  context.note(
    `${sockets.filter((socket) => socket.readyState === 'open').length} connections open`,
  );
  context.onClose(closeSockets);
}

function sendEverySecond(text: string): void {
  byteTimer = setInterval(() => {
    for (const socket of sockets) if (socket.writable) socket.write(text);
  }, 1000);
}

function closeSockets(): void {
  clearInterval(byteTimer);
  for (const socket of sockets) socket.destroy();
}

export const slowHeaders: Fault = {
  ...UNHARMED,
  name: 'slow headers: a byte a second',
  seconds: 13,
  start: (context) => context.serve(),
  inject: async (context) => {
    await openSockets(context, context.long ? 2000 : 500, 'GET / HTTP/1.1\r\nHost: a\r\nX: ');
    sendEverySecond('a');
  },
  expect: (context) =>
    context.expect(
      closed === sockets.length,
      `cut after ten seconds: ${closed} of ${sockets.length}`,
    ),
  restore: closeSockets,
};

export const slowBodies: Fault = {
  ...UNHARMED,
  name: 'slow bodies: a byte a second',
  seconds: 5,
  start: (context) => context.serve(),
  inject: async (context) => {
    const head =
      'PATCH /api/v1/users/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"';
    await openSockets(context, context.long ? 2000 : 500, head);
    sendEverySecond('a');
    // `limits.e2e-spec.ts` tests the limit of thirty seconds with one connection.
    if (!context.long) return;
    await sleep(28_000);
  },
  expect: (context) => {
    if (!context.long) return;
    context.expect(closed === sockets.length, `cut after thirty seconds: ${closed}`);
  },
  restore: closeSockets,
};

export const idleConnections: Fault = {
  ...UNHARMED,
  name: 'idle connections',
  seconds: 4,
  start: (context) => context.serve(),
  inject: async (context) => {
    const expected = context.long ? 5000 : 2000;
    const request = 'GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n';
    const before = Math.round(context.services[0]?.residentMegabytes() ?? 0);
    await openSockets(context, expected, request);
    const after = Math.round(context.services[0]?.residentMegabytes() ?? 0);
    context.note(`resident memory ${before} MB before, ${after} MB with them`);
  },
  expect: (context) => context.expect(closed === 0, `they stay open: ${closed} closed`),
  restore: closeSockets,
};

let largeHeaders: Promise<void>;
let responses: Answer[];

export const largeHeader: Fault = {
  ...UNHARMED,
  name: 'headers of 15 KB',
  seconds: 0,
  start: (context) => context.serve(),
  inject: async (context) => {
    responses = [];
    const shapes = [
      'Bearer '.padEnd(15_000, ' '),
      `Bearer ${'a'.repeat(15_000)}`,
      'B'.repeat(15_000),
    ];
    const end = performance.now() + 4000;
    largeHeaders = (async () => {
      for (let turn = 0; performance.now() < end; turn += 1) {
        const authorization = shapes[turn % shapes.length] ?? '';
        const asking = { headers: { authorization } };
        responses.push(
          ...(await Promise.all(
            Array.from({ length: 10 }, () => context.send('/api/v1/auth/me', asking)),
          )),
        );
        await sleep(20);
      }
    })();
    await largeHeaders;
    context.note(`${responses.length} of them, the slowest after ${slowest(responses)} ms`);
    expectAll(context, responses, 401, 'headers of 15 KB');
  },
  restore: () => undefined,
};

function slowest(answers: Answer[]): number {
  return Math.round(Math.max(...answers.map(({ ms }) => ms)));
}
