import { type DynamicModule, Global, Module } from '@nestjs/common';
import type { Logger } from 'pino';
import { Environment } from './config/environment.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from './database/physical-schema.js';
import { RequestTracker } from './http/request-tracker.js';
import { LOG } from './logging/logger.js';

/** What exists before Nest does, made injectable everywhere. */
@Global()
@Module({})
export class CoreModule {
  static forRoot(known: {
    environment: Environment;
    physical: PhysicalSchema;
    log: Logger;
  }): DynamicModule {
    return {
      module: CoreModule,
      providers: [
        { provide: Environment, useValue: known.environment },
        { provide: PHYSICAL_SCHEMA, useValue: known.physical },
        { provide: LOG, useValue: known.log },
        { provide: RequestTracker, useFactory: () => new RequestTracker(known.log) },
      ],
      exports: [Environment, PHYSICAL_SCHEMA, LOG, RequestTracker],
    };
  }
}
