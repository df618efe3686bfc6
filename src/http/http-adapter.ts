import { createServer, IncomingMessage, ServerResponse } from 'node:http';
import type { NestApplicationOptions } from '@nestjs/common';
import { ExpressAdapter } from '@nestjs/platform-express';
import type { Express } from 'express';
import { methodNotAllowed } from './method-not-allowed.js';

/** Express on a Node server that has limits and creates Express' own message objects. */
export class HttpAdapter extends ExpressAdapter {
  override initHttpServer({ httpsOptions }: NestApplicationOptions = {}): void {
    if (httpsOptions) throw new Error('HTTPS is not supported. Terminate TLS at the proxy.');
    const app = this.getInstance<Express>();
    const server = createServer({ ...LIMITS, ...messageClassesFor(app) }, (request, response) => {
      // Another listener may have responded to the request or dropped it.
      if (!response.writableEnded && !response.destroyed) app(request, response);
    });
    // Node would respond without our headers and without a log line. A server may ignore unknown
    // expectations (RFC 9110 §10.1.1). Node handles `100-continue` without this event.
    server.on('checkExpectation', (request, response) => server.emit('request', request, response));
    this.httpServer = server;
  }

  /** Nest calls this after all routes are registered. */
  override setNotFoundHandler(...handler: Parameters<ExpressAdapter['setNotFoundHandler']>) {
    this.use(methodNotAllowed(this.getInstance()));
    return super.setNotFoundHandler(...handler);
  }
}

const LIMITS = {
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  // The interval at which Node enforces the two timeouts above. The default is 30 s.
  connectionsCheckingInterval: 1000,
  // Longer than the idle timeout of load balancers (AWS 60 s, nginx 60 s, HAProxy as configured).
  // If the server closed first, a request already on its way would fail.
  keepAliveTimeout: 75_000,
  // `requireHost` rejects requests without a host with a problem.
  requireHostHeader: false,
};

/**
 * Express changes the prototype of each request and response, which takes a tenth of the time of a
 * small request. Objects that already have the prototype skip this deoptimization.
 *
 * @see https://github.com/expressjs/express/issues/5998
 */
function messageClassesFor(app: Express) {
  class Request extends IncomingMessage {}
  class Response<Message extends IncomingMessage> extends ServerResponse<Message> {}
  copyPrototype(Request.prototype, app.request);
  copyPrototype(Response.prototype, app.response);
  Object.assign(app, { request: Request.prototype, response: Response.prototype });
  return { IncomingMessage: Request, ServerResponse: Response };
}

/** Copies own properties such as `app`, so that a mounted app keeps its own settings. */
function copyPrototype(target: object, source: object): void {
  Object.setPrototypeOf(target, Object.getPrototypeOf(source) as object);
  Object.defineProperties(target, Object.getOwnPropertyDescriptors(source));
}
