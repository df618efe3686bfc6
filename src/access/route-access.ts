import { Reflector } from '@nestjs/core';
import { memoizePerRoute } from '../http/memoize-per-route.js';
import { PUBLIC, ROLES, SELF, VERIFIED } from './decorators.js';

/** What a route asks of its caller, by its own decorators and those of its controller. */
export interface RouteAccess {
  isPublic: boolean;
  /** One of these. */
  roles: string[] | undefined;
  /** The path parameter that must be the caller's own id. */
  self: string | undefined;
  verified: boolean;
}

const reflector = new Reflector();

export const routeAccess = memoizePerRoute((controller, handler): RouteAccess => {
  const metadata = (name: string): unknown =>
    reflector.getAllAndOverride(name, [handler, controller]);
  // A route that asks for a role is not public, whatever its class says.
  const asksMore = [ROLES, SELF, VERIFIED].some(
    (name) => reflector.get(name, handler) !== undefined,
  );
  return {
    isPublic: metadata(PUBLIC) === true && !asksMore,
    roles: metadata(ROLES) as string[] | undefined,
    self: metadata(SELF) as string | undefined,
    verified: metadata(VERIFIED) === true,
  };
});
