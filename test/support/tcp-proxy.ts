import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A line between the service and its database that can be cut, kept cut, or made slow. */
export interface TcpProxy {
  port: number;
  /** How many lines were ever asked for, and how many there are. */
  opened: number;
  readonly open: number;
  /** New lines are closed as they come. */
  cut: boolean;
  /** Each piece that the other side sends arrives so much later. */
  delayMs: number;
  /** Every line there is gets a TCP reset, on both sides. */
  resetAll(): void;
  close(): void;
}

export async function startTcpProxy(target: () => number): Promise<TcpProxy> {
  const pairs = new Set<[Socket, Socket]>();
  const server = createServer((near) => {
    proxy.opened += 1;
    if (proxy.cut) return void near.resetAndDestroy();
    const far = connect(target(), '127.0.0.1');
    const pair: [Socket, Socket] = [near, far];
    pairs.add(pair);
    near.setNoDelay(true);
    far.setNoDelay(true);
    near.on('data', (chunk) => far.write(chunk));
    far.on('data', (chunk) => {
      if (proxy.delayMs === 0) return void near.write(chunk);
      setTimeout(() => near.write(chunk), proxy.delayMs);
    });
    for (const [one, other] of [pair, pair.toReversed() as [Socket, Socket]]) {
      one.on('error', () => other.resetAndDestroy());
      one.on('close', () => {
        pairs.delete(pair);
        other.end();
      });
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy: TcpProxy = {
    port: (server.address() as AddressInfo).port,
    opened: 0,
    get open() {
      return pairs.size;
    },
    cut: false,
    delayMs: 0,
    resetAll: () => {
      for (const pair of pairs) for (const socket of pair) socket.resetAndDestroy();
    },
    close: () => {
      proxy.cut = true;
      proxy.resetAll();
      server.close();
    },
  };
  return proxy;
}
