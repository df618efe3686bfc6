import type { LoadOrder } from './load-generator.ts';
import type { BenchUser } from './bench-env.ts';

export type Call = LoadOrder['calls'][number];

/** Builds the same request for all servers. Only the token differs. */
export function call(path: string, token: string | undefined, body: string): Call {
  const authorization = token === undefined ? '' : `authorization: Bearer ${token}\r\n`;
  return {
    request: `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n${authorization}\r\n`,
    body,
  };
}

export async function answerTo(url: string, token: string): Promise<string> {
  const answer = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
  const body = await answer.text();
  if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}: ${body}`);
  return body;
}

/** Derives the response for a user from the first one. `makeUsers` varies only the number. */
export function bodyFor({ id }: BenchUser, first: string): string {
  const number = id.replace('bench-', '');
  return first
    .replaceAll('"bench-1"', `"${id}"`)
    .replaceAll('"User 1"', `"User ${number}"`)
    .replaceAll('"user1@', `"user${number}@`);
}
