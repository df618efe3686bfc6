import type { Server } from 'node:http';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { SwaggerModule } from '@nestjs/swagger';
import type { Request } from 'express';
import { Logger, PinoLogger } from 'nestjs-pino';
import { AppModule, type Foundation } from './app.module.js';
import { InFlight } from './common/in-flight.js';
import { RateLimits } from './common/rate-limits.js';
import { answerPlainly } from './common/json.js';
import { ProblemFilter } from './common/problem.filter.js';
import { readBody, refuseUnreadable, takePath } from './common/request.js';
import { allowOwnPage } from './common/security-headers.js';
import { describeApi, withoutExamples } from './openapi.js';
import { RequestPipe } from './common/validation.js';

/** The whole application, ready to listen: what `main.ts` serves is what the tests test. */
export async function createApp(foundation: Foundation): Promise<NestExpressApplication> {
  const app = await NestFactory.create<NestExpressApplication>(AppModule.on(foundation), {
    bodyParser: false,
    // From the first line on, so that a start that fails half way is in the same log.
    logger: new Logger(new PinoLogger({ pinoHttp: { logger: foundation.log } }), {}),
    abortOnError: false,
    routeConflictPolicy: { duplicate: 'error' },
  });
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
  app.use(inFlight.open);
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
  app.use(readBody(BODY_LIMIT, inFlight.answerInTime));

  app.useGlobalFilters(new ProblemFilter(log));
  app.useGlobalPipes(new RequestPipe());

  if (environment.DOCS_ENABLED) {
    // Not Nest's routes, so no guard counts them, and they are dear.
    app.use(['/api/v1/docs', '/api/v1/openapi.json'], app.get(RateLimits).countAddress);
    app.use('/api/v1/docs', allowOwnPage);
    SwaggerModule.setup('api/v1/docs', app, () => describeApi(app), {
      jsonDocumentUrl: 'api/v1/openapi.json',
      raw: ['json'],
      customSiteTitle: 'Gatehouse API',
      swaggerOptions: { persistAuthorization: true },
      patchDocumentOnRequest: (request, _response, document) =>
        (request as Request).path.endsWith('.js') ? withoutExamples(document) : document,
    });
  }

  const server: Server = app.getHttpServer();
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  // Node looks at the two limits above once in this time, which is 30 s where nobody says otherwise.
  Object.assign(server, { connectionsCheckingInterval: 1000 });
  // Longer than a load balancer keeps an idle connection (AWS 60 s, nginx 60 s, HAProxy as set): the
  // side that closes first must be the one that does not have a request on its way.
  server.keepAliveTimeout = 75_000;
  server.on('clientError', refuseUnreadable(log));
  server.prependListener('request', takePath);
  return app;
}

const EXPOSED_HEADERS = ['ETag', 'X-Request-Id', 'RateLimit', 'RateLimit-Policy', 'Retry-After'];
const BODY_LIMIT = '100kb';
