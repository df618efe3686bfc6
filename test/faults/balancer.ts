import { once } from 'node:events';
import { Agent, createServer, request as send } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Balancer {
  url: string;
  /** Whether it sends requests to that replica. */
  sendsTo(replica: string): boolean;
  close(): void;
}

interface Replica {
  url: string;
  ready: boolean;
  agent: Agent;
}

/**
 * A simple load balancer: round robin over ready replicas, keep-alive connections and no retries.
 * The client receives every failure of a replica.
 */
export async function startBalancer(urls: string[], everyMs = 200): Promise<Balancer> {
  const replicas: Replica[] = urls.map((url) => ({
    url,
    ready: false,
    agent: new Agent({ keepAlive: true, maxFreeSockets: 64 }),
  }));
  let turn = 0;
  const server = createServer((request, response) => {
    const ready = replicas.filter((replica) => replica.ready);
    const replica = ready[(turn += 1) % ready.length];
    if (!replica) return void response.writeHead(502).end('no replica is ready');
    const proxied = send(`${replica.url}${request.url}`, {
      agent: replica.agent,
      method: request.method ?? 'GET',
      headers: { ...request.headers, connection: 'keep-alive' },
    });
    proxied.on('response', (answer) => {
      const { connection: _, 'keep-alive': __, ...headers } = answer.headers;
      response.writeHead(answer.statusCode ?? 502, headers);
      answer.pipe(response);
    });
    proxied.on('error', (error) => response.writeHead(502).end(error.message));
    request.pipe(proxied);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const ask = async (replica: Replica): Promise<void> => {
    const answer = await fetch(`${replica.url}/health/ready`, {
      signal: AbortSignal.timeout(2000),
    }).catch(() => undefined);
    replica.ready = answer?.status === 200;
    await answer?.body?.cancel();
  };
  await Promise.all(replicas.map(ask));
  const asking = setInterval(() => replicas.forEach((replica) => void ask(replica)), everyMs);

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    sendsTo: (url) => replicas.some((replica) => replica.url === url && replica.ready),
    close: () => {
      clearInterval(asking);
      for (const { agent } of replicas) agent.destroy();
      server.closeAllConnections();
      server.close();
    },
  };
}
