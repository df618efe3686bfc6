import type { Express, Response } from 'express';

/**
 * Express gives an answer its type, then takes it apart and puts it together again to add the character
 * set: a tenth of the time of a small answer. The usual one, of which nothing has to be found out, is sent
 * as it is.
 */
export function replyWithPlainJson({ response: prototype }: Express): void {
  const standard = prototype.json;
  prototype.json = function json(this: Response, value: unknown): Response {
    const isUsual =
      this.statusCode === 200 &&
      !this.hasHeader('Content-Type') &&
      // Whether it is what the client has already, Express knows.
      this.req.headers['if-none-match'] === undefined &&
      this.req.headers['if-modified-since'] === undefined;
    // Not a text where the value has a `toJSON` that makes nothing of it.
    const text = isUsual ? (JSON.stringify(value) as string | undefined) : undefined;
    if (text === undefined) return standard.call(this, value);
    this.setHeader('Content-Type', 'application/json; charset=utf-8');
    this.setHeader('Content-Length', Buffer.byteLength(text));
    return this.end(text);
  };
}
