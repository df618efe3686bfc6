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

/** The name that the connection of the change feed sends first. */
export const FEED_CONNECTION = 'gatehouse change feed';

/** With `only`, the proxy affects no connection whose first data does not contain that text. */
export async function startTcpProxy(target: () => number, only?: string): Promise<TcpProxy> {
  const pairs = new Set<[Socket, Socket]>();
  const untouched = new Set<Socket>();
  const server = createServer((near) => {
    near.setNoDelay(true);
    near.on('error', () => near.destroy());
    if (only === undefined) return void join(near);
    near.once('data', (first) => {
      if (first.includes(only)) return void join(near)?.write(first);
      const far = connect(target(), '127.0.0.1');
      far.on('error', () => near.destroy());
      for (const socket of [near, far]) {
        untouched.add(socket);
        socket.on('close', () => untouched.delete(socket));
      }
      far.write(first);
      near.pipe(far).pipe(near);
    });
  }).listen(0, '127.0.0.1');
  /** Connects a socket of the client with the database, unless the proxy is cut. */
  const join = (near: Socket): Socket | undefined => {
    proxy.opened += 1;
    if (proxy.cut) return void near.resetAndDestroy();
    const far = connect(target(), '127.0.0.1');
    const pair: [Socket, Socket] = [near, far];
    pairs.add(pair);
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
    return far;
  };
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
      for (const socket of untouched) socket.destroy();
      server.close();
    },
  };
  return proxy;
}
