import { type DynamicModule, Global, Module } from '@nestjs/common';
import type { Logger } from 'pino';
import { Environment } from './config/environment.js';
import type { PhysicalSchema } from './database/physical-schema.js';
import { RequestTracker } from './http/request-tracker.js';

/** `@Inject(LOG)`: the process's pino logger, for events with members of their own. */
export const LOG = Symbol('LOG');
/** `@Inject(PHYSICAL_SCHEMA)`: what the database looked like at the start. */
export const PHYSICAL_SCHEMA = Symbol('PHYSICAL_SCHEMA');

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
