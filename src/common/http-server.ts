import { createServer, IncomingMessage, ServerResponse } from 'node:http';
import { ExpressAdapter } from '@nestjs/platform-express';
import type { Express } from 'express';

/** Node's server as Nest starts it, with limits, and with requests that are Express' own. */
export class HttpServer extends ExpressAdapter {
  override initHttpServer(): void {
    const app = this.getInstance<Express>();
    this.httpServer = createServer({ ...LIMITS, ...bornFor(app) }, app);
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
};

/**
 * Express gives each request and each answer another prototype, a tenth of the time of a small one: V8 has
 * to find it a new shape. One that was born with it is left as it is.
 */
function bornFor(app: Express) {
  class Request extends IncomingMessage {}
  class Response<Of extends IncomingMessage> extends ServerResponse<Of> {}
  Object.setPrototypeOf(Request.prototype, app.request);
  Object.setPrototypeOf(Response.prototype, app.response);
  Object.assign(app, { request: Request.prototype, response: Response.prototype });
  return { IncomingMessage: Request, ServerResponse: Response };
}
