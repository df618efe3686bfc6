import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { NestExpressApplication } from '@nestjs/platform-express';
import type { OpenAPIObject } from '@nestjs/swagger';
import type { Express } from 'express';
import { Environment } from '../config/environment.js';
import { fixedContent } from '../http/fixed-content.js';
import { pageHeaders } from '../http/security-headers.js';
import { RateLimiter } from '../rate-limit/rate-limiter.js';
import { createDocument } from './document.js';
import { pageDocument } from './page-document.js';

/** Serves Swagger UI and its document. The document is created at the first request for it. */
export function serveSwaggerUi(app: NestExpressApplication): void {
  const environment = app.get(Environment);
  const { BETTER_AUTH_URL, DOCS_SIGN_IN } = environment;
  // Nest's guards do not cover these routes, so the rate limit is applied here.
  const { countAddress } = app.get(RateLimiter);
  app.use(['/api/v1/docs', '/api/v1/openapi.json'], countAddress);
  app.use(PAGE, pageHeaders(DOCS_SIGN_IN ? new URL(BETTER_AUTH_URL).origin : undefined));
  const express: Express = app.getHttpAdapter().getInstance();
  express.get('/', countAddress, (_request, response) => response.redirect(PAGE));
  let document: OpenAPIObject | undefined;
  const describe = () => (document ??= createDocument(app));
  express.get(
    '/api/v1/openapi.json',
    fixedContent('json', () => JSON.stringify(describe())),
  );
  express.get(
    `${PAGE}/openapi.json`,
    fixedContent('json', () => JSON.stringify(pageDocument(describe(), environment))),
  );
  express.get(
    PAGE,
    fixedContent('html', () => renderPage(DOCS_SIGN_IN ? BETTER_AUTH_URL : '')),
  );
  serveFiles(express, OWN_FOLDER, OWN_FILES);
  serveFiles(express, swaggerUiFolder(), SWAGGER_UI_FILES);
}

const PAGE = '/api/v1/docs';

/** Nest's `SwaggerModule.setup` would serve its files without compression and caching. */
function serveFiles(express: Express, folder: string, files: string[]): void {
  for (const file of files) {
    const content = fixedContent(extname(file), () => readFile(join(folder, file)));
    express.get(`${PAGE}/${file}`, content);
  }
}

/** The browser runs these files as they are. The build copies them. */
const OWN_FOLDER = fileURLToPath(new URL('./page/', import.meta.url));
const OWN_FILES = [
  'page.css',
  'page.js',
  'sign-in.js',
  'better-auth.js',
  'token-session.js',
  'pasted-token.js',
];
const SWAGGER_UI_FILES = ['swagger-ui.css', 'swagger-ui-bundle.js', 'favicon-32x32.png'];

/** `swagger-ui-dist` is a dependency of `@nestjs/swagger`, not of this package. */
function swaggerUiFolder(): string {
  const requireFromNest = createRequire(createRequire(import.meta.url).resolve('@nestjs/swagger'));
  return dirname(requireFromNest.resolve('swagger-ui-dist/package.json'));
}

async function renderPage(betterAuthUrl: string): Promise<Buffer> {
  const template = await readFile(join(OWN_FOLDER, 'index.html'), 'utf8');
  const escaped = betterAuthUrl.replaceAll('&', '&amp;').replaceAll('"', '&quot;');
  return Buffer.from(template.replace('{{betterAuthUrl}}', () => escaped));
}
