import { Agent, request } from 'node:http';

export interface Answer {
  /** 0 where the connection broke before an answer was there. */
  status: number;
  headers: NodeJS.Dict<string | string[]>;
  body: string;
  ms: number;
}

export interface Asking {
  method?: string;
  token?: string;
  body?: object;
  headers?: Record<string, string>;
}

/** Keeps its connections, as clients and proxies do, and opens as many as it needs. */
export class HttpClient {
  private readonly agent: Agent;

  constructor({ connections = Number.POSITIVE_INFINITY } = {}) {
    this.agent = new Agent({ keepAlive: true, maxSockets: connections });
  }

  ask(url: string, { method = 'GET', token, body, headers = {} }: Asking = {}): Promise<Answer> {
    const began = performance.now();
    return new Promise((resolve) => {
      const settle = (answer: Omit<Answer, 'ms'>): void =>
        resolve({ ...answer, ms: performance.now() - began });
      const broken = { status: 0, headers: {}, body: '' };
      const text = body === undefined ? undefined : JSON.stringify(body);
      const asking = request(url, {
        agent: this.agent,
        method,
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(text === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
          ...headers,
        },
      });
      asking.on('response', (response) => {
        let received = '';
        response.on('data', (chunk: Buffer) => (received += chunk.toString()));
        response.on('end', () =>
          settle({ status: response.statusCode ?? 0, headers: response.headers, body: received }),
        );
        response.on('error', () => settle(broken));
      });
      asking.on('error', () => settle(broken));
      // Far beyond what is promised: a request that is never answered is a finding, not a wait.
      asking.setTimeout(GIVE_UP_MS, () => asking.destroy(new Error('no answer')));
      asking.end(text);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

const GIVE_UP_MS = 15_000;
