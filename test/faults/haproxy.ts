import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { findFreePort } from '../../tools/ports.ts';
import {
  type ExternalProgram,
  findProgram,
  startExternalProgram,
} from '../support/external-program.ts';

export interface HaProxy extends ExternalProgram {
  url: string;
  /** Whether it sends requests to the replica of that number. */
  sendsTo(replica: number): Promise<boolean>;
}

/**
 * Debian's HAProxy with a simple production setup: round robin, keep-alive and a readiness check
 * twice a second. It never retries, so the client receives every failure of a replica.
 */
export async function startHaProxy(folder: string, ports: number[]): Promise<HaProxy> {
  const program = findProgram('haproxy');
  if (!program) throw new Error('haproxy is not installed.');
  const port = await findFreePort();
  mkdirSync(folder, { recursive: true });
  const settings = join(folder, 'haproxy.cfg');
  const socket = join(folder, 'haproxy.sock');
  const servers = ports.map((each, number) => `  server replica${number} 127.0.0.1:${each}\n`);
  writeFileSync(
    settings,
    `global
  maxconn 2000
  stats socket ${socket}
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 30s
  timeout check 2s
  retries 0
  no option redispatch
frontend clients
  bind 127.0.0.1:${port}
  default_backend replicas
backend replicas
  balance roundrobin
  option httpchk GET /health/ready
  http-check expect status 200
  default-server check inter 500ms fall 2 rise 1
${servers.join('')}`,
  );
  const balancer = startExternalProgram(program, ['-db', '-f', settings]);
  const sendsTo = async (replica: number): Promise<boolean> => {
    const state = await sendCommand(socket, 'show stat').catch(() => '');
    const line = state.split('\n').find((entry) => entry.startsWith(`replicas,replica${replica},`));
    return line?.split(',')[17] === 'UP';
  };
  await balancer.untilReady(
    async () => (await sendCommand(socket, 'show stat').catch(() => '')) !== '',
  );
  return { ...balancer, url: `http://127.0.0.1:${port}`, sendsTo };
}

async function sendCommand(path: string, command: string): Promise<string> {
  const socket = connect(path);
  let answer = '';
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
  socket.end(`${command}\n`);
  await once(socket, 'close');
  return answer;
}
