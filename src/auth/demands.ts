import { Reflector } from '@nestjs/core';
import { perRoute } from '../common/per-route.js';
import { PUBLIC, ROLES, SELF, VERIFIED } from './decorators.js';

/** What a route asks of its caller, by its own decorators and those of its controller. */
export interface Demands {
  isPublic: boolean;
  /** One of these. */
  roles: string[] | undefined;
  /** The path parameter that must be the caller's own id. */
  self: string | undefined;
  verified: boolean;
}

const reflector = new Reflector();

export const demandsOf = perRoute((controller, handler): Demands => {
  const said = (name: string): unknown => reflector.getAllAndOverride(name, [handler, controller]);
  // A route that asks for a role is not public, whatever its class says.
  const asksMore = [ROLES, SELF, VERIFIED].some(
    (name) => reflector.get(name, handler) !== undefined,
  );
  return {
    isPublic: said(PUBLIC) === true && !asksMore,
    roles: said(ROLES) as string[] | undefined,
    self: said(SELF) as string | undefined,
    verified: said(VERIFIED) === true,
  };
});
