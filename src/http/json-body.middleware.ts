import { Injectable, type NestMiddleware } from '@nestjs/common';
import type { NextFunction, Request, Response } from 'express';
import { JSON_BODY } from './body-rules.js';
import { BodyReader } from './body.guard.js';
import { hasUnreadBody } from './read-body.js';

/** Reads a JSON body for a handler that is no route of a controller, such as GraphQL's. */
@Injectable()
export class JsonBodyMiddleware implements NestMiddleware {
  constructor(private readonly reader: BodyReader) {}

  async use(request: Request, _response: Response, next: NextFunction): Promise<void> {
    if (hasUnreadBody(request)) await this.reader.read(request, JSON_BODY);
    next();
  }
}
