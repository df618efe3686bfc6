import { MikroOrmModule } from '@mikro-orm/nestjs';
import { type DynamicModule, Module, type Type } from '@nestjs/common';
import { RouterModule } from '@nestjs/core';
import { ormOptions } from '../mikro-orm.config.js';
import { AdministrationModule } from './administration/administration.module.js';
import { AuthModule } from './auth/auth.module.js';
import { SessionsModule } from './sessions/sessions.module.js';
import { AuditModule } from './audit/audit.module.js';
import { UsersModule } from './users/users.module.js';
import { CoreModule } from './core.module.js';
import type { Environment } from './config/environment.js';
import type { Extensions } from './extensions.js';
import type { ProcessLogger } from './logging/logger.js';
import type { PhysicalSchema } from './database/physical-schema.js';
import { AccountsModule } from './accounts/accounts.module.js';
import { HealthModule } from './health/health.module.js';

/** The values that exist before Nest creates the first module. */
export interface AppOptions {
  environment: Environment;
  physical: PhysicalSchema;
  log: ProcessLogger;
  /** The modules and entities of your own. */
  extensions: Extensions;
}

/** The modules whose routes are below `/api/v1`. */
const API_MODULES: Type[] = [
  AuthModule,
  UsersModule,
  AdministrationModule,
  SessionsModule,
  AccountsModule,
  AuditModule,
];

@Module({})
export class AppModule {
  static forRoot({ environment, physical, log, extensions }: AppOptions): DynamicModule {
    const modules = [...API_MODULES, ...extensions.modules];
    return {
      module: AppModule,
      imports: [
        CoreModule.forRoot({ environment, physical, log }),
        MikroOrmModule.forRoot({
          ...ormOptions({
            url: environment.DATABASE_URL,
            poolMax: environment.DATABASE_POOL_MAX,
            physical,
            extensions,
            warn: (message) => log.warn({ from: 'database' }, message),
          }),
          // `OrmContextGuard` creates the request context, and costs less than the middleware.
          registerRequestContext: false,
        }),
        AuthModule,
        ...modules,
        HealthModule,
        RouterModule.register(modules.map((module) => ({ path: 'api/v1', module }))),
      ],
    };
  }
}
