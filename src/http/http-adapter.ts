import { createServer, IncomingMessage, ServerResponse } from 'node:http';
import type { NestApplicationOptions } from '@nestjs/common';
import { ExpressAdapter } from '@nestjs/platform-express';
import type { Express } from 'express';

/** Express under Nest, on a server of Node's with limits and with requests that are Express' own. */
export class HttpAdapter extends ExpressAdapter {
  override initHttpServer({ httpsOptions }: NestApplicationOptions = {}): void {
    if (httpsOptions) throw new Error('This server speaks HTTP: TLS is for what stands before it.');
    const app = this.getInstance<Express>();
    const server = createServer({ ...LIMITS, ...messageClassesFor(app) }, (request, response) => {
      // Another listener may have answered it, or dropped it.
      if (!response.writableEnded && !response.destroyed) app(request, response);
    });
    // Node would answer by itself, without our headers and without a line. Nobody has to know an
    // expectation (RFC 9110 §10.1.1), and the one that there is, `100-continue`, does not come here.
    server.on('checkExpectation', (request, response) => server.emit('request', request, response));
    this.httpServer = server;
  }
}

const LIMITS = {
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  // Node looks at the two limits above once in this time, which is 30 s where nobody says otherwise.
  connectionsCheckingInterval: 1000,
  // Longer than a load balancer keeps an idle connection (AWS 60 s, nginx 60 s, HAProxy as set): the
  // side that closes first must be the one that does not have a request on its way.
  keepAliveTimeout: 75_000,
  // `readBody` refuses such requests, in our own way.
  requireHostHeader: false,
};

/**
 * Express gives each request and each answer another prototype, a tenth of the time of a small one: V8 has
 * to find it a new shape. One that was born with it is left as it is.
 */
function messageClassesFor(app: Express) {
  class Request extends IncomingMessage {}
  class Response<Of extends IncomingMessage> extends ServerResponse<Of> {}
  copyPrototype(Request.prototype, app.request);
  copyPrototype(Response.prototype, app.response);
  Object.assign(app, { request: Request.prototype, response: Response.prototype });
  return { IncomingMessage: Request, ServerResponse: Response };
}

/** Takes over what the other has of its own, `app`, so that to mount this in another app changes nothing. */
function copyPrototype(prototype: object, other: object): void {
  Object.setPrototypeOf(prototype, Object.getPrototypeOf(other) as object);
  Object.defineProperties(prototype, Object.getOwnPropertyDescriptors(other));
}
