import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, extname, join } from 'node:path';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import type { Express } from 'express';
import { fixedContent } from '../http/fixed-content.js';
import { RateLimiter } from '../rate-limit/rate-limiter.js';
import { swaggerHeaders } from '../http/security-headers.js';
import { createDocument, withoutExamples } from './document.js';

/** Serves Swagger UI and its document. The document is created at the first request for it. */
export function serveSwaggerUi(app: NestExpressApplication): void {
  // Nest's guards do not cover these routes, so the rate limit is applied here.
  const { countAddress } = app.get(RateLimiter);
  app.use(['/api/v1/docs', '/api/v1/openapi.json'], countAddress);
  app.use('/api/v1/docs', swaggerHeaders);
  const express: Express = app.getHttpAdapter().getInstance();
  express.get('/', countAddress, (_request, response) => response.redirect('/api/v1/docs'));
  let document: OpenAPIObject | undefined;
  const describe = () => (document ??= createDocument(app));
  express.get(
    '/api/v1/openapi.json',
    fixedContent('json', () => JSON.stringify(describe())),
  );
  express.get(
    UI_DOCUMENT,
    fixedContent('json', () => JSON.stringify(withoutExamples(describe()))),
  );
  const folder = swaggerUiFolder();
  for (const file of SWAGGER_UI_FILES) {
    const content = fixedContent(extname(file), () => readFile(join(folder, file)));
    express.get(`/api/v1/docs/${file}`, content);
  }
  // The page fetches the document. Nest would render it into a script for each request.
  SwaggerModule.setup('api/v1/docs', app, {} as OpenAPIObject, {
    raw: false,
    swaggerUrl: UI_DOCUMENT,
    customSiteTitle: 'Gatehouse API',
    swaggerOptions: { persistAuthorization: true },
  });
}

const UI_DOCUMENT = '/api/v1/docs/openapi.json';
/** The files that the page loads. Nest would serve them without compression and caching. */
const SWAGGER_UI_FILES = [
  'swagger-ui.css',
  'swagger-ui-bundle.js',
  'swagger-ui-standalone-preset.js',
  'favicon-16x16.png',
  'favicon-32x32.png',
];

/** `swagger-ui-dist` is a dependency of `@nestjs/swagger`, not of this package. */
function swaggerUiFolder(): string {
  const requireFromNest = createRequire(createRequire(import.meta.url).resolve('@nestjs/swagger'));
  return dirname(requireFromNest.resolve('swagger-ui-dist/package.json'));
}
