import { Injectable, type OnModuleInit } from '@nestjs/common';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { SwaggerModule } from '@nestjs/swagger';
import type { Request } from 'express';
import { RateLimits } from './common/rate-limits.js';
import { allowOwnPage } from './common/security-headers.js';
import { describeApi, withoutExamples } from './openapi.js';

/**
 * Swagger UI and the document it shows. They come behind the routes of the API, which are there when Nest
 * calls this: Express holds the path of a request against every layer before the one that answers it. A
 * route of yours that matches `/api/v1/docs` answers in their place.
 */
@Injectable()
export class Docs implements OnModuleInit {
  private app: NestExpressApplication | undefined;

  serveOn(app: NestExpressApplication): void {
    this.app = app;
  }

  onModuleInit(): void {
    const { app } = this;
    if (!app) return;
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
}
