import { Reflector } from '@nestjs/core';
import { memoizePerRoute } from '../http/memoize-per-route.js';
import { PUBLIC, ROLES, SELF, VERIFIED } from './decorators.js';

/** The access rules of a route, from its decorators and those of its controller. */
export interface RouteAccess {
  isPublic: boolean;
  /** The user needs one of these roles. */
  roles: string[] | undefined;
  /** The path parameter that must be the user's own id. */
  self: string | undefined;
  verified: boolean;
}

const reflector = new Reflector();

export const routeAccess = memoizePerRoute((controller, handler): RouteAccess => {
  const metadata = (name: string): unknown =>
    reflector.getAllAndOverride(name, [handler, controller]);
  // A route with an access rule is never public, even in a class with `@Public()`.
  const hasOwnRule = [ROLES, SELF, VERIFIED].some(
    (name) => reflector.get(name, handler) !== undefined,
  );
  return {
    isPublic: metadata(PUBLIC) === true && !hasOwnRule,
    roles: metadata(ROLES) as string[] | undefined,
    self: metadata(SELF) as string | undefined,
    verified: metadata(VERIFIED) === true,
  };
});
