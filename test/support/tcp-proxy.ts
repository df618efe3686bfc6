import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A TCP proxy in front of the database that can cut, refuse or delay connections. */
export interface TcpProxy {
  port: number;
  /** The number of connections so far, and of those that are open. */
  opened: number;
  readonly open: number;
  /** Closes new connections immediately. */
  cut: boolean;
  /** Delays all data from the other side. */
  delayMs: number;
  /** Resets every open connection on both sides. */
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
