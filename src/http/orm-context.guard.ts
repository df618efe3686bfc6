import { MikroORM, RequestContext } from '@mikro-orm/core';
import { type CanActivate, type ExecutionContext, Injectable, SetMetadata } from '@nestjs/common';
import { memoizePerRoute } from './memoize-per-route.js';

/**
 * Gives each request its own identity map, as MikroORM's middleware does, but only for routes that
 * can use it. It must run before every asynchronous guard: the context is valid for the code that
 * runs after this function in the same asynchronous call.
 */
@Injectable()
export class OrmContextGuard implements CanActivate {
  constructor(private readonly orm: MikroORM) {}

  canActivate(context: ExecutionContext): true {
    if (!isWithoutOrm(context)) RequestContext.enter(this.orm.em);
    return true;
  }
}

/** The handler uses no entity manager of its request, so it needs no identity map. */
export const WithoutOrm = () => SetMetadata(WITHOUT_ORM, true);

const WITHOUT_ORM = 'gatehouse:without-orm';

const isWithoutOrm = memoizePerRoute((controller, handler) =>
  [handler, controller].some((target) => Reflect.getMetadata(WITHOUT_ORM, target) === true),
);
