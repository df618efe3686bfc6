import type { LoadOrder } from './load-generator.ts';
import type { BenchUser } from './world.ts';

export type Call = LoadOrder['calls'][number];

/** The same request for all contestants, but for who asks. */
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

/** What one user is answered, from what the first one is: `makeUsers` made them alike but for a number. */
export function bodyFor({ id }: BenchUser, first: string): string {
  const number = id.replace('bench-', '');
  return first
    .replaceAll('"bench-1"', `"${id}"`)
    .replaceAll('"User 1"', `"User ${number}"`)
    .replaceAll('"user1@', `"user${number}@`);
}
