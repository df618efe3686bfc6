import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault.ts';
import type { Answer } from './http-client.ts';
import { expectAll } from './issuer.ts';
import type { Stage } from './stage.ts';

/** Nobody who behaves notices those who do not. */
const UNHARMED = { answers: [200] };

let sockets: Socket[] = [];
let dripping: NodeJS.Timeout;
let closed = 0;

async function openSockets(stage: Stage, count: number, first: string): Promise<void> {
  const port = stage.services[0]?.port ?? 0;
  sockets = [];
  closed = 0;
  for (let each = 0; each < count; each += 1) {
    const socket = connect(port, '127.0.0.1', () => socket.write(first));
    socket.on('error', () => undefined);
    socket.on('close', () => (closed += 1));
    socket.resume();
    sockets.push(socket);
    // Not more at once than a listener has places for those who wait.
    if (each % 200 === 199) await sleep(20);
  }
  await stage.until(() => sockets.every((socket) => !socket.connecting));
  stage.note(`${sockets.filter((socket) => socket.readyState === 'open').length} connections open`);
  stage.onClose(letGo);
}

function drip(text: string): void {
  dripping = setInterval(() => {
    for (const socket of sockets) if (socket.writable) socket.write(text);
  }, 1000);
}

function letGo(): void {
  clearInterval(dripping);
  for (const socket of sockets) socket.destroy();
}

export const slowHeaders: Fault = {
  ...UNHARMED,
  name: 'slow headers: a byte a second',
  seconds: 13,
  start: (stage) => stage.serve(),
  inject: async (stage) => {
    await openSockets(stage, stage.long ? 2000 : 500, 'GET / HTTP/1.1\r\nHost: a\r\nX: ');
    drip('a');
  },
  expect: (stage) =>
    stage.expect(
      closed === sockets.length,
      `cut after ten seconds: ${closed} of ${sockets.length}`,
    ),
  restore: letGo,
};

export const slowBodies: Fault = {
  ...UNHARMED,
  name: 'slow bodies: a byte a second',
  seconds: 5,
  start: (stage) => stage.serve(),
  inject: async (stage) => {
    const head =
      'PATCH /api/v1/users/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"';
    await openSockets(stage, stage.long ? 2000 : 500, head);
    drip('a');
    // Cut after thirty, as `test/limits` shows with one.
    if (!stage.long) return;
    await sleep(28_000);
  },
  expect: (stage) => {
    if (!stage.long) return;
    stage.expect(closed === sockets.length, `cut after thirty seconds: ${closed}`);
  },
  restore: letGo,
};

export const idleConnections: Fault = {
  ...UNHARMED,
  name: 'idle connections',
  seconds: 4,
  start: (stage) => stage.serve(),
  inject: async (stage) => {
    const wanted = stage.long ? 5000 : 2000;
    const request = 'GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n';
    const before = Math.round(stage.services[0]?.residentMegabytes() ?? 0);
    await openSockets(stage, wanted, request);
    const after = Math.round(stage.services[0]?.residentMegabytes() ?? 0);
    stage.note(`resident memory ${before} MB before, ${after} MB with them`);
  },
  expect: (stage) => stage.expect(closed === 0, `they stay: ${closed} closed`),
  restore: letGo,
};

let largeHeaders: Promise<void>;
let answered: Answer[];

export const largeHeader: Fault = {
  ...UNHARMED,
  name: 'headers of 15 KB',
  seconds: 0,
  start: (stage) => stage.serve(),
  inject: async (stage) => {
    answered = [];
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
        answered.push(
          ...(await Promise.all(
            Array.from({ length: 10 }, () => stage.ask('/api/v1/auth/me', asking)),
          )),
        );
        await sleep(20);
      }
    })();
    await largeHeaders;
    stage.note(`${answered.length} of them, the slowest after ${slowest(answered)} ms`);
    expectAll(stage, answered, 401, 'headers of 15 KB');
  },
  restore: () => undefined,
};

function slowest(answers: Answer[]): number {
  return Math.round(Math.max(...answers.map(({ ms }) => ms)));
}
