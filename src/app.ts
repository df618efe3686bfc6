import type { Server } from 'node:http';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { Logger, PinoLogger } from 'nestjs-pino';
import { AppModule, type AppOptions } from './app.module.js';
import { onClientError } from './http/client-errors.js';
import { HttpAdapter } from './http/http-adapter.js';
import { replyWithPlainJson } from './http/plain-json.js';
import { ProblemFilter } from './http/problem.filter.js';
import { normalizeTarget } from './http/request-target.js';
import { requireHost } from './http/require-host.js';
import { RequestTracker } from './http/request-tracker.js';
import { RequestValidationPipe } from './validation/validation.pipe.js';
import { serveSwaggerUi } from './openapi/swagger-ui.js';

/** Creates the whole application, ready to listen. `main.ts` and the tests use the same one. */
export async function createApp(options: AppOptions): Promise<NestExpressApplication> {
  const app = await NestFactory.create<NestExpressApplication>(
    AppModule.forRoot(options),
    new HttpAdapter(),
    {
      bodyParser: false,
      // Set here and not later, so that the same log contains errors during the start.
      logger: new Logger(new PinoLogger({ pinoHttp: { logger: options.log } }), {}),
      abortOnError: false,
      routeConflictPolicy: { duplicate: 'error' },
    },
  );
  return setup(app, options);
}

function setup(
  app: NestExpressApplication,
  { environment, log }: AppOptions,
): NestExpressApplication {
  app.set('trust proxy', environment.trustProxy);
  app.set('query parser', 'simple');
  // A response is valid only for a moment. Routes whose ETag is meaningful set it themselves.
  app.set('etag', false);
  app.disable('x-powered-by');
  replyWithPlainJson(app.getHttpAdapter().getInstance());

  const tracker = app.get(RequestTracker);
  if (environment.CORS_ORIGINS.length > 0) {
    app.enableCors({
      origin: environment.CORS_ORIGINS,
      credentials: true,
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
      allowedHeaders: [...ALLOWED_HEADERS, ...environment.CORS_ALLOWED_HEADERS],
      exposedHeaders: EXPOSED_HEADERS,
      maxAge: 600,
    });
  }
  app.use(requireHost(tracker.begin));

  app.useGlobalFilters(new ProblemFilter(log));
  app.useGlobalPipes(new RequestValidationPipe());

  if (environment.DOCS_ENABLED) serveSwaggerUi(app);

  const server: Server = app.getHttpServer();
  server.on('clientError', onClientError(log, tracker));
  server.prependListener('request', normalizeTarget);
  server.prependListener('request', tracker.onRequest);
  return app;
}

const ALLOWED_HEADERS = ['Authorization', 'Content-Type', 'If-Match', 'X-Request-Id'];
const EXPOSED_HEADERS = ['ETag', 'X-Request-Id', 'RateLimit', 'RateLimit-Policy', 'Retry-After'];
