import { createServer } from 'node:http';
import express from 'express';

/** Minimal servers that respond with this JSON. The benchmark compares Gatehouse with them. */
const [kind, port, json = ''] = process.argv.slice(2);
const body: unknown = JSON.parse(json);

if (kind === 'express') {
  const app = express();
  app.get('/api/v1/auth/me', (_request, response) => void response.json(body));
  app.listen(Number(port), '127.0.0.1');
} else {
  createServer((_request, response) => {
    const text = JSON.stringify(body);
    response.writeHead(200, {
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(text),
    });
    response.end(text);
  }).listen(Number(port), '127.0.0.1');
}
