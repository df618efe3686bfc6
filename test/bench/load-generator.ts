import { readFileSync } from 'node:fs';
import { connect } from 'node:net';

/** The requests to send in turn, and the expected bodies of the responses. */
export interface LoadOrder {
  port: number;
  connections: number;
  seconds: number;
  /** Sends each request once, and ends after the last one. */
  once?: boolean;
  calls: { request: string; body: string }[];
}

export interface LoadReport {
  seconds: number;
  statuses: Record<string, number>;
  /** Responses with an unexpected body. */
  wrongBodies: number;
  perSecond: number;
  p50: number;
  p99: number;
}

/**
 * The load generator polls its sockets, so that the server does not spend CPU time on waking it.
 * Latencies are accurate to this interval.
 */
const POLL_INTERVAL_MS = 0.5;

function startPolling(): { end(): void } {
  const never = new Int32Array(new SharedArrayBuffer(4));
  let hasEnded = false;
  const sleep = (): void => {
    if (hasEnded) return;
    Atomics.wait(never, 0, 0, POLL_INTERVAL_MS);
    setImmediate(sleep);
  };
  sleep();
  return { end: () => (hasEnded = true) };
}

/**
 * Sends one request after another over each connection and reads each response completely. It uses
 * plain sockets, because the load must cost much less than the fastest server that it measures.
 */
function run({ port, connections, seconds, once, calls }: LoadOrder): Promise<LoadReport> {
  const requests = calls.map(({ request }) => Buffer.from(request, 'latin1'));
  const bodies = calls.map(({ body }) => Buffer.from(body));
  const statuses: Record<string, number> = {};
  const times: number[] = [];
  let wrongBodies = 0;
  let turn = 0;
  let open = connections;
  const startedAt = performance.now();
  const endsAt = startedAt + seconds * 1000;

  return new Promise((resolve, reject) => {
    const finish = (): void => {
      open -= 1;
      if (open > 0) return;
      const lasted = (performance.now() - startedAt) / 1000;
      times.sort((a, b) => a - b);
      resolve({
        seconds: lasted,
        statuses,
        wrongBodies,
        perSecond: times.length / lasted,
        p50: times[Math.floor(times.length * 0.5)] ?? NaN,
        p99: times[Math.floor(times.length * 0.99)] ?? NaN,
      });
    };
    for (let connection = 0; connection < connections; connection += 1) {
      const socket = connect(port, '127.0.0.1');
      socket.setNoDelay(true);
      let received: Buffer = Buffer.alloc(0);
      let call = 0;
      let sentAt = 0;
      const send = (): void => {
        sentAt = performance.now();
        if (sentAt > endsAt || (once === true && turn >= requests.length)) {
          socket.removeAllListeners('close').end();
          finish();
          return;
        }
        call = turn % requests.length;
        turn += 1;
        socket.write(requests[call] as Buffer);
      };
      socket.on('connect', send);
      socket.on('data', (chunk: Buffer) => {
        received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
        const answer = readAnswer(received);
        if (!answer) return;
        received = Buffer.alloc(0);
        times.push(performance.now() - sentAt);
        statuses[answer.status] = (statuses[answer.status] ?? 0) + 1;
        if (!answer.body.equals(bodies[call] as Buffer)) wrongBodies += 1;
        send();
      });
      socket.on('error', reject);
      socket.on('close', () => reject(new Error('The server closed a connection.')));
    }
  });
}

function readAnswer(bytes: Buffer): { status: string; body: Buffer } | undefined {
  const end = bytes.indexOf('\r\n\r\n');
  if (end === -1) return undefined;
  const head = bytes.toString('latin1', 0, end);
  const status = head.slice(9, 12);
  const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
  if (length !== undefined) {
    const stop = end + 4 + Number(length);
    return bytes.length < stop ? undefined : { status, body: bytes.subarray(end + 4, stop) };
  }
  return readChunks(bytes, end + 4, status);
}

function readChunks(bytes: Buffer, from: number, status: string) {
  const parts: Buffer[] = [];
  for (let at = from; ;) {
    const line = bytes.indexOf('\r\n', at);
    if (line === -1) return undefined;
    const size = Number.parseInt(bytes.toString('latin1', at, line), 16);
    if (bytes.length < line + 2 + size + 2) return undefined;
    if (size === 0) return { status, body: Buffer.concat(parts) };
    parts.push(bytes.subarray(line + 2, line + 2 + size));
    at = line + 2 + size + 2;
  }
}

const [path = ''] = process.argv.slice(2);
const polling = startPolling();
const report = await run(JSON.parse(readFileSync(path, 'utf8')) as LoadOrder);
polling.end();
process.stdout.write(JSON.stringify(report));
