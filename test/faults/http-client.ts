import { Agent, request } from 'node:http';

export interface Answer {
  /** 0 if the connection broke before the response. */
  status: number;
  headers: NodeJS.Dict<string | string[]>;
  body: string;
  ms: number;
}

export interface RequestOptions {
  method?: string;
  token?: string;
  body?: object;
  headers?: Record<string, string>;
}

/** Keeps connections alive, and opens as many as it needs. */
export class HttpClient {
  private readonly agent: Agent;

  constructor({ connections = Number.POSITIVE_INFINITY } = {}) {
    this.agent = new Agent({ keepAlive: true, maxSockets: connections });
  }

  send(
    url: string,
    { method = 'GET', token, body, headers = {} }: RequestOptions = {},
  ): Promise<Answer> {
    const startedAt = performance.now();
    return new Promise((resolve) => {
      const settle = (answer: Omit<Answer, 'ms'>): void =>
        resolve({ ...answer, ms: performance.now() - startedAt });
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
      // Far above the promised deadline. A request without a response is then a finding.
      asking.setTimeout(REQUEST_TIMEOUT_MS, () => asking.destroy(new Error('no answer')));
      asking.end(text);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

const REQUEST_TIMEOUT_MS = 15_000;
