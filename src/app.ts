import type { Server } from 'node:http';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { Logger, PinoLogger } from 'nestjs-pino';
import { AppModule, type AppOptions } from './app.module.js';
import { HttpAdapter } from './http/http-adapter.js';
import { RequestTracker } from './http/request-tracker.js';
import { replyWithPlainJson } from './http/plain-json.js';
import { ProblemFilter } from './http/problem.filter.js';
import { onClientError } from './http/client-errors.js';
import { jsonBody } from './http/json-body.js';
import { normalizeTarget } from './http/request-target.js';
import { RequestValidationPipe } from './validation/validation.pipe.js';
import { SwaggerUi } from './openapi/swagger-ui.js';

/** The whole application, ready to listen: what `main.ts` serves is what the tests test. */
export async function createApp(foundation: AppOptions): Promise<NestExpressApplication> {
  const app = await NestFactory.create<NestExpressApplication>(
    AppModule.forRoot(foundation),
    new HttpAdapter(),
    {
      bodyParser: false,
      // From the first line on, so that a start that fails half way is in the same log.
      logger: new Logger(new PinoLogger({ pinoHttp: { logger: foundation.log } }), {}),
      abortOnError: false,
      routeConflictPolicy: { duplicate: 'error' },
    },
  );
  return setup(app, foundation);
}

function setup(
  app: NestExpressApplication,
  { environment, log }: AppOptions,
): NestExpressApplication {
  app.set('trust proxy', environment.trustProxy);
  app.set('query parser', 'simple');
  // An answer is true for one moment; the tag that clients may rely on is made where it means something.
  app.set('etag', false);
  app.disable('x-powered-by');
  replyWithPlainJson(app.getHttpAdapter().getInstance());

  const inFlight = app.get(RequestTracker);
  if (environment.CORS_ORIGINS.length > 0) {
    app.enableCors({
      origin: environment.CORS_ORIGINS,
      credentials: true,
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      allowedHeaders: ['Authorization', 'Content-Type', 'If-Match', 'X-Request-Id'],
      exposedHeaders: EXPOSED_HEADERS,
      maxAge: 600,
    });
  }
  app.use(jsonBody(environment.BODY_LIMIT, inFlight.startDeadline));

  app.useGlobalFilters(new ProblemFilter(log));
  app.useGlobalPipes(new RequestValidationPipe());

  if (environment.DOCS_ENABLED) app.get(SwaggerUi).serveOn(app);

  const server: Server = app.getHttpServer();
  server.on('clientError', onClientError(log));
  server.prependListener('request', normalizeTarget);
  server.prependListener('request', inFlight.onRequest);
  return app;
}

const EXPOSED_HEADERS = ['ETag', 'X-Request-Id', 'RateLimit', 'RateLimit-Policy', 'Retry-After'];
