import type { Express, Response } from 'express';

/**
 * Sends an ordinary JSON response directly. Express parses and formats the content type again to
 * add the character set, which takes a tenth of the time of a small response.
 */
export function replyWithPlainJson({ response: prototype }: Express): void {
  const standard = prototype.json;
  prototype.json = function json(this: Response, value: unknown): Response {
    const isPlain =
      this.statusCode === 200 &&
      !this.hasHeader('Content-Type') &&
      // Express evaluates conditional requests.
      this.req.headers['if-none-match'] === undefined &&
      this.req.headers['if-modified-since'] === undefined;
    // `JSON.stringify` returns undefined for a value whose `toJSON` returns undefined.
    const text = isPlain ? (JSON.stringify(value) as string | undefined) : undefined;
    if (text === undefined) return standard.call(this, value);
    this.setHeader('Content-Type', 'application/json; charset=utf-8');
    this.setHeader('Content-Length', Buffer.byteLength(text));
    return this.end(text);
  };
}
