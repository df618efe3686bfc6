import { type DynamicModule, Global, Module } from '@nestjs/common';
import { AccessPolicy } from './access/access-policy.js';
import { Environment } from './config/environment.js';
import { PHYSICAL_SCHEMA, type PhysicalSchema } from './database/physical-schema.js';
import { BodyReader } from './http/body.guard.js';
import { RequestTracker } from './http/request-tracker.js';
import { LOG, type ProcessLogger } from './logging/logger.js';
import { MetricsServer } from './metrics/metrics-server.js';
import { Metrics } from './metrics/metrics.js';

/** Makes the objects that exist before Nest starts injectable in every module. */
@Global()
@Module({})
export class CoreModule {
  static forRoot(options: {
    environment: Environment;
    physical: PhysicalSchema;
    log: ProcessLogger;
  }): DynamicModule {
    return {
      module: CoreModule,
      providers: [
        { provide: Environment, useValue: options.environment },
        { provide: AccessPolicy, useValue: new AccessPolicy(options.environment) },
        { provide: PHYSICAL_SCHEMA, useValue: options.physical },
        { provide: LOG, useValue: options.log },
        {
          provide: Metrics,
          useFactory: () => Metrics.create(options.environment.METRICS_PORT !== undefined),
        },
        MetricsServer,
        {
          provide: RequestTracker,
          inject: [Metrics],
          useFactory: (metrics: Metrics) => new RequestTracker(options.log, metrics),
        },
        BodyReader,
      ],
      exports: [
        Environment,
        AccessPolicy,
        PHYSICAL_SCHEMA,
        LOG,
        Metrics,
        RequestTracker,
        BodyReader,
      ],
    };
  }
}
