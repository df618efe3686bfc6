import type { Server } from 'node:http';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { Logger, PinoLogger } from 'nestjs-pino';
import { AppModule, type Foundation } from './app.module.js';
import { HttpAdapter } from './common/http-adapter.js';
import { InFlight } from './common/in-flight.js';
import { answerPlainly } from './common/json.js';
import { ProblemFilter } from './common/problem.filter.js';
import { readBody, refuseUnreadable, takePath } from './common/request.js';
import { RequestPipe } from './common/validation.js';
import { Docs } from './docs.js';

/** The whole application, ready to listen: what `main.ts` serves is what the tests test. */
export async function createApp(foundation: Foundation): Promise<NestExpressApplication> {
  const app = await NestFactory.create<NestExpressApplication>(
    AppModule.on(foundation),
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
  { environment, log }: Foundation,
): NestExpressApplication {
  app.set('trust proxy', environment.trustProxy);
  app.set('query parser', 'simple');
  // An answer is true for one moment; the tag that clients may rely on is made where it means something.
  app.set('etag', false);
  app.disable('x-powered-by');
  answerPlainly(app.getHttpAdapter().getInstance());

  const inFlight = app.get(InFlight);
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
  app.use(readBody(environment.BODY_LIMIT, inFlight.answerInTime));

  app.useGlobalFilters(new ProblemFilter(log));
  app.useGlobalPipes(new RequestPipe());

  if (environment.DOCS_ENABLED) app.get(Docs).serveOn(app);

  const server: Server = app.getHttpServer();
  server.on('clientError', refuseUnreadable(log));
  server.prependListener('request', takePath);
  server.prependListener('request', inFlight.open);
  return app;
}

const EXPOSED_HEADERS = ['ETag', 'X-Request-Id', 'RateLimit', 'RateLimit-Policy', 'Retry-After'];
